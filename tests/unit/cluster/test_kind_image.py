"""What kind's node image is made of: the layout of its build, without building it."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from testing.cluster import build, kind_image, node_init
from testing.cluster.base import ClusterError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder like that of kind's base image."""
    folder = tmp_path / "files"
    for name, text in {
        "usr/local/bin/entrypoint": "#!/bin/bash\n",
        "kind/bin/hook.sh": "#!/bin/bash\n",
        "etc/containerd/config.toml": '[plugins.cri]\n  sandbox_image = "registry.example/pause:3.10"\n',
        "etc/systemd/system/kubelet.service": "[Unit]\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o444)  # as in a module's folder
    return folder


def test_what_is_run_can_be_run_and_the_rest_can_be_read(base: Path, tmp_path: Path) -> None:
    kind_image.copy_base(base, tmp_path / "copy")

    modes = {
        str(path.relative_to(tmp_path / "copy")): oct(stat.S_IMODE(path.stat().st_mode))
        for path in (tmp_path / "copy").rglob("*")
        if path.is_file()
    }
    assert modes == {
        "usr/local/bin/entrypoint": "0o755",
        "kind/bin/hook.sh": "0o755",
        "etc/containerd/config.toml": "0o644",
        "etc/systemd/system/kubelet.service": "0o644",
    }


def test_the_sandbox_image_is_the_one_that_containerd_is_told(base: Path) -> None:
    assert kind_image.sandbox_image(base) == "registry.example/pause:3.10"
    (base / "etc/containerd/config.toml").chmod(0o644)
    (base / "etc/containerd/config.toml").write_text("[plugins]\n")
    with pytest.raises(ClusterError, match="no sandbox image"):
        kind_image.sandbox_image(base)


def test_our_files_are_whole(tmp_path: Path) -> None:
    kind_image.write_additions(tmp_path)

    network = json.loads((tmp_path / "etc/cni/net.d/10-bridge.conflist").read_text())
    assert [plugin["type"] for plugin in network["plugins"]] == ["bridge"]
    assert (tmp_path / "kind/version").read_text() == build.KUBERNETES
    assert (
        json.loads((tmp_path / "kind/manifests/default-storage.yaml").read_text())["kind"] == "StorageClass"
    )
    for script in ("kind/bin/put-in-place.sh",):
        subprocess.run(["bash", "-n", tmp_path / script], check=True, timeout=180)
    # each setting is a file with the kernel's own name, which the kernel has
    for name, value in node_init.SYSCTLS.items():
        assert (tmp_path / "kind/sysctls" / name).read_text().strip() == value
        assert (Path("/proc/sys") / name).exists()


def test_the_settings_are_mounted_by_a_command_that_finds_each_file(tmp_path: Path) -> None:
    """The unit's own command, with a ``mount`` that writes down what it is called with."""
    kind_image.write_additions(tmp_path)
    line = kind_image.SHIELD.replace("\\\n", "").split("ExecStart=")[1].split("\n")[0]
    script = line.split("'")[1].replace("/kind/sysctls", str(tmp_path / "kind/sysctls"))
    tool = tmp_path / "tools" / "mount"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\necho "$3"\n')
    tool.chmod(0o755)

    done = subprocess.run(
        ["bash", "-euc", script],
        env={"PATH": f"{tool.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )

    assert sorted(done.stdout.split()) == sorted(f"/proc/sys/{name}" for name in node_init.SYSCTLS)


def test_every_program_of_the_image_is_one_that_is_built() -> None:
    for name in kind_image.PROGRAMS:
        assert build.program(name).parent in [build.GROUPS[group].bin for group in kind_image.GROUPS]
