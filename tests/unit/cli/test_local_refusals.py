"""What a local run refuses, as the cluster does or because it cannot have it, and what it names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.local import LocalRun, as_stored
from runkeys.local.volumes import Volumes
from runkeys.problems import Invalid
from tests.crd_cases import BAD_RUNS, CANARY, RUN, changed
from tests.unit.cli.local_runs import TOKEN, manifest, task
from tests.unit.cli.terminal import Terminal

EXAMPLE = manifest(
    {
        **task(
            secrets=[{"name": "t", "secret": "token", "file": "t.txt"}],
            input=[{"name": "x", "from": "input.x"}],
            env=[{"name": "A", "value": "1"}],
        )
    },
    input={"x": 1},
)
TEMPLATE = "spec.tasks.0.template.spec"
MAIN = f"{TEMPLATE}.containers.0"
VOLUME = [{"name": "v", "emptyDir": {}}]


def refused(made: Any) -> str:
    with pytest.raises(Invalid) as error:
        LocalRun(made, {"token": TOKEN})
    return str(error.value)


@pytest.mark.parametrize(("path", "value", "message"), BAD_RUNS, ids=[path for path, *_ in BAD_RUNS])
def test_what_the_kinds_refuse_a_local_run_refuses(path: str, value: Any, message: str) -> None:
    if path == "spec.sealedInput":
        value = CANARY  # a list of texts is found even earlier, and in the same words
    with pytest.raises(Invalid) as error:
        as_stored(changed(RUN, path, value))
    answer = " ".join(str(error.value).split())
    assert message in answer
    assert CANARY.lower() not in answer.lower()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("metadata.name", "a" * 70, "may have at most 63 characters"),
        ("metadata.name", "Upper", "metadata.name: Invalid value: a lowercase RFC 1123 subdomain"),
        ("metadata.name", "../x", "metadata.name: Invalid value"),
        ("spec.tasks.0.name", "a" * 70, "spec.tasks[0].name: Too long"),
        ("spec.tasks.0.name", "Upper", "spec.tasks[0].name: Forbidden: a task name may hold lower-case"),
        ("spec.tasks.0.runs", "always", "spec.tasks[0].runs: Forbidden: runs must be OnSuccess or Always"),
        ("spec.tasks.0.env.0.value", 1, "spec.tasks[0].env[0].value in body must be of type string"),
        ("spec.tasks.0.surprise", 1, 'unknown field "spec.tasks[0].surprise"'),
        ("surprise", 1, 'unknown field "surprise"'),
        ("spec.suspend", True, "spec.suspend: a suspended run starts nothing"),
        (
            f"{TEMPLATE}.ephemeralContainers",
            [{"name": "e"}],
            "ephemeral containers not allowed in pod template",
        ),
        (f"{MAIN}.name", "Upper", "a lowercase RFC 1123 label must consist of"),
        (
            f"{MAIN}.env",
            [{"name": "A", "value": 3}],
            "env[0].value: must be a string, not a number; write it in",
        ),
        (f"{MAIN}.env", [{"name": "A", "value": True}], "env[0].value: must be a string, not true or false"),
        (f"{MAIN}.command", ["sleep", 3], "command[1]: must be a string, not a number"),
        (f"{MAIN}.command", None, "containers[0].command: the container has none"),
        (
            f"{MAIN}.envFrom",
            [{"configMapRef": {"name": "c"}}],
            "containers[0].envFrom: cannot be had locally",
        ),
        (
            f"{MAIN}.env",
            [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
            "env[0].valueFrom.configMapKeyRef: cannot be had locally",
        ),
        (
            f"{MAIN}.env",
            [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
            "env[0].valueFrom.resourceFieldRef: cannot be had locally",
        ),
        (
            f"{MAIN}.env",
            [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "env[0].valueFrom.fieldRef: cannot be had locally",
        ),
        (
            f"{TEMPLATE}.volumes",
            [{"name": "v", "configMap": {"name": "c"}}],
            "volumes[0].configMap: cannot be had",
        ),
        (
            f"{TEMPLATE}.volumes",
            [{"name": "v", "hostPath": {"path": "/"}}],
            "volumes[0].hostPath: cannot be had",
        ),
        (
            f"{TEMPLATE}.volumes",
            [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
            "volumes[0].persistentVolumeClaim: cannot be had locally",
        ),
        (f"{TEMPLATE}.volumes", [*VOLUME, *VOLUME], 'volumes[1].name: Duplicate value: "v"'),
        (f"{TEMPLATE}.volumes", [{"name": "../v", "emptyDir": {}}], "volumes[0].name: Invalid value"),
        (f"{MAIN}.volumeMounts", [{"name": "v", "mountPath": "/v"}], "volumeMounts[0].name: Not found"),
        (f"{TEMPLATE}.terminationGracePeriodSeconds", -1, "must be greater than or equal to 0"),
        (
            f"{TEMPLATE}.initContainers",
            [{"name": "s", "command": ["a"], "restartPolicy": "Always"}],
            "initContainers[0].restartPolicy: a sidecar",
        ),
        (f"{TEMPLATE}.initContainers", [{"name": "main", "command": ["a"]}], 'Duplicate value: "main"'),
        (f"{TEMPLATE}.initContainers", [{"name": "s"}], "initContainers[0].command: the container has none"),
    ],
)
def test_what_the_cluster_refuses_or_a_local_run_cannot_have_is_said(
    path: str, value: Any, says: str
) -> None:
    assert says in refused(changed(EXAMPLE, path, value))


def test_tasks_of_one_name_are_refused() -> None:
    assert 'spec.tasks[1]: Duplicate value: {"name":"work"}' in refused(manifest(task(), task()))


OUTSIDE = "../../../../escaped"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.tasks.0.secrets.0.file", OUTSIDE),
        ("spec.tasks.0.secrets.0.file", "/tmp/escaped"),
        ("spec.tasks.0.secrets.0.file", ".."),
        ("spec.tasks.0.input.0.name", OUTSIDE),
        ("spec.tasks.0.input.0.name", "/tmp/escaped"),
    ],
)
def test_no_name_leads_out_of_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, value: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert ": Forbidden: a " in refused(changed(EXAMPLE, path, value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "mount",
    [{"mountPath": f"/var/runtime/{OUTSIDE}"}, {"mountPath": "v"}, {"subPath": OUTSIDE}, {"subPath": "/x"}],
)
def test_no_mount_leads_out_of_the_runs_folder(mount: dict[str, str]) -> None:
    made = changed(EXAMPLE, f"{TEMPLATE}.volumes", VOLUME)
    mounts = [{"name": "v", "mountPath": "/v", **mount}]
    assert "volumeMounts[0]." in refused(changed(made, f"{MAIN}.volumeMounts", mounts))


def test_no_file_of_a_volume_leads_out_of_it() -> None:
    item = {"path": OUTSIDE, "fieldRef": {"fieldPath": "metadata.annotations['a']"}}
    volume = {"name": "v", "downwardAPI": {"items": [item]}}
    assert "items[0].path: Invalid value: must not contain '..'" in refused(
        changed(EXAMPLE, f"{TEMPLATE}.volumes", [volume])
    )


@pytest.mark.parametrize("path", [OUTSIDE, "/tmp/escaped", "", "a/../../b"])
def test_whatever_was_checked_before_nothing_is_written_outside(tmp_path: Path, path: str) -> None:
    item = {"key": "k", "path": path}
    template = {"spec": {"volumes": [{"name": "v", "secret": {"items": [item]}}]}}
    with pytest.raises(Invalid):
        Volumes(tmp_path / "a/b/c/d", template, {}, tmp_path, {"k": b"x"})
    assert [item for item in tmp_path.rglob("*") if item.is_file()] == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    items = [{"key": "k", "path": "x"}, {"key": "k", "path": "x"}]
    template = {"spec": {"volumes": [{"name": "v", "secret": {"items": items}}]}}
    with pytest.raises(FileExistsError):  # as it would be for a link: only new files are written
        Volumes(tmp_path, template, {}, tmp_path, {"k": b"x"})


def test_what_has_no_effect_is_named(terminal: Terminal) -> None:
    made = copy.deepcopy(EXAMPLE)
    spec = made["spec"]["tasks"][0]["template"]["spec"]
    spec["hostAliases"], spec["surprise"] = [{"ip": "1.2.3.4", "hostnames": ["x"]}], 1
    spec["nodeSelector"] = {"a": "b"}  # about the place
    spec["containers"][0] |= {
        "livenessProbe": {"tcpSocket": {"port": 1}},
        "resources": {"limits": {"cpu": 1}},
    }
    (terminal.folder / "f.yaml").write_text(yaml.safe_dump(made))
    (terminal.folder / ".env").write_text(f"token={TOKEN}\n")
    done = terminal.run("run", "--local", "-f", "f.yaml", "--env-file", ".env")
    assert done.code == 0, done
    assert done.err.splitlines() == [
        "task work: without effect in a local run: spec.hostAliases, spec.containers[0].livenessProbe",
        "task work: spec.tasks[0].template.spec.surprise is no field of a pod; the cluster leaves it out",
    ]


def test_a_dry_run_shows_no_value(terminal: Terminal) -> None:
    made = changed(EXAMPLE, "spec.tasks.0.env.0.value", f"x{TOKEN}y")
    made = changed(made, "spec.tasks.0.secrets.0", {"name": "t", "input": "own"})
    made["spec"]["input"]["$secrets"] = {"own": "canary-of-the-user"}
    made["spec"]["tasks"][0]["secrets"].append({"name": "s", "secret": "token"})
    (terminal.folder / "f.yaml").write_text(yaml.safe_dump(made))
    (terminal.folder / ".env").write_text(f"token={TOKEN}\n")
    for form in ("json", "yaml", "table"):
        out = terminal.ok("run", "--local", "--dry-run", "-f", "f.yaml", "--env-file", ".env", "-o", form)
        assert TOKEN not in out
        assert "canary-of-the-user" not in out
        assert yaml.safe_load(out)["spec"]["input"]["$secrets"] == {"own": "[redacted]"}


def test_what_a_run_returns_is_masked_and_what_tasks_hand_on_is_not(tmp_path: Path) -> None:
    writes = (
        "import json, os; v = os.environ['SECRET_T']\n"
        "json.dump({'v': [v], v: 1, 'n': 12345678}, open('/var/runtime/output/output.json', 'w'))"
    )
    reads = "import json; print(len(json.load(open('/var/runtime/input/x.json'))['v'][0]))"
    first = task("a", writes, recordOutput=True)
    first["secrets"] = [{"name": "t", "secret": "token"}, {"name": "pin", "secret": "pin"}]
    second = task("b", reads, dependsOn=["a"], input=[{"name": "x", "from": "tasks.a.output"}])
    lines: list[str] = []
    seen: list[str] = []
    made = LocalRun(
        manifest(first, second, input={"given": f"has {TOKEN}"}),
        {"token": TOKEN, "pin": "12345678"},
        folder=tmp_path,
        print_line=lambda _, text: lines.append(text),
        changed=lambda run: seen.append(json.dumps(run.to_wire())),
    )
    run = made.execute()
    assert lines == [str(len(TOKEN))]
    assert run.status.tasks[0].output == {"v": ["[redacted]"], "[redacted]": 1, "n": "[redacted]"}
    assert TOKEN not in json.dumps(run.to_wire())
    assert not any(TOKEN in text for text in seen)
