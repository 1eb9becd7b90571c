"""kind's configuration, and the choice of the node image and the daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testing.cluster import docker, kind, kind_image, oci_runtime


def patches(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    (node,) = config["nodes"]
    return {patch["kind"]: patch for patch in map(json.loads, node["kubeadmConfigPatches"])}


def test_both_images_have_an_audit_log_and_all_revisions(tmp_path: Path) -> None:
    for from_source in (False, True):
        cluster = patches(kind.configuration(tmp_path, from_source=from_source))["ClusterConfiguration"]
        arguments = {a["name"]: a["value"] for a in cluster["apiServer"]["extraArgs"]}
        assert arguments["etcd-compaction-interval"] == "0"
        assert arguments["audit-log-path"].startswith("/var/log/kubernetes/")


def test_the_image_from_source_brings_its_network(tmp_path: Path) -> None:
    config = kind.configuration(tmp_path, from_source=True)
    assert config["networking"] == {"disableDefaultCNI": True}
    kubelet = patches(config)["KubeletConfiguration"]
    assert (kubelet["failCgroupV1"], kubelet["oomScoreAdj"]) == (False, 0)


def test_kinds_own_image_is_used_as_it_is(tmp_path: Path) -> None:
    config = kind.configuration(tmp_path, from_source=False)
    assert "networking" not in config
    assert "failCgroupV1" not in patches(config)["KubeletConfiguration"]


@pytest.mark.parametrize(
    ("named", "answers", "image"),
    [
        ("", True, kind.RELEASED_IMAGE),
        ("", False, kind.FROM_SOURCE),
        ("source", True, kind.FROM_SOURCE),
        ("mine:1", False, "mine:1"),
    ],
)
def test_the_node_image_is_named_or_follows_from_the_engine(
    monkeypatch: pytest.MonkeyPatch, named: str, answers: bool, image: str
) -> None:
    monkeypatch.setenv(kind.IMAGE_VARIABLE, named)
    monkeypatch.setattr(docker, "docker_answers", lambda: answers)
    assert kind.wanted_image() == image
    assert ("kubeadm" in kind.groups()) == (image == kind.FROM_SOURCE)


def test_the_daemon_has_everything_to_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNKEYS_CACHE", str(tmp_path))
    daemon = docker.Daemon()
    daemon.state.mkdir()
    command = daemon.command()

    assert command[:2] == ["unshare", "--mount"]
    flags = dict(word.removeprefix("--").split("=", 1) for word in command if word.count("=") == 1)
    for place in ("data-root", "exec-root", "pidfile", "host"):
        assert str(tmp_path) in flags[place]
    # the machine's firewall, forwarding and default bridge stay as they are
    untouched = {"bridge": "none", "iptables": "false", "ip-forward": "false", "ip-masq": "false"}
    assert untouched.items() <= flags.items()


@pytest.mark.parametrize("missing", [[], ["CAP_SYS_RESOURCE"]])
def test_the_small_runtime_is_used_only_where_root_lacks_something(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: list[str]
) -> None:
    monkeypatch.setenv("RUNKEYS_CACHE", str(tmp_path))
    monkeypatch.setattr(oci_runtime, "lacking", lambda *_: missing)
    daemon = docker.Daemon()
    daemon.state.mkdir()

    command = daemon.command()

    launcher = daemon.state / "oci-runtime"
    assert ("--default-runtime=less" in command) == bool(missing)
    assert launcher.exists() == bool(missing)
    if missing:
        assert oci_runtime.__file__ in launcher.read_text()


def test_the_pod_network_is_as_large_as_what_the_node_is_given(tmp_path: Path) -> None:
    cluster = patches(kind.configuration(tmp_path, from_source=True))["ClusterConfiguration"]
    arguments = {a["name"]: a["value"] for a in cluster["controllerManager"]["extraArgs"]}
    assert kind_image.POD_NETWORK.endswith("/" + arguments["node-cidr-mask-size"])
