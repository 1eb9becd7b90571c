"""What the kubelet would show of a container with secrets is refused, field by field; and what looks like it is not."""

from __future__ import annotations

from typing import Any

import pytest

from runkeys.api.binding import SEALED
from runkeys.planning.kubelet import COPIED, EXPANDED
from runkeys.planning.refusal import Reason
from runkeys.planning.requirements import TaskRequirements, task_requirements
from runkeys.policies.account import Account
from runkeys.policies.shown import shown
from tests.unit.planning.objects import bound_to, make_binding, make_run, task, template

AS_FILE = [{"name": "api_token", "secret": "token", "file": "token"}]
MOUNT = {"name": "work", "mountPath": "/work"}
EXPANSIONS: dict[str, dict[str, Any]] = {
    "command[0]": {"command": ["$(SECRET_API_TOKEN)"]},
    "args[1]": {"args": ["x", "--token=$$$(SECRET_API_TOKEN)"]},
    "env[0].value": {"env": [{"name": "COPY", "value": "a$(SECRET_API_TOKEN)b"}]},
    "volumeMounts[0].subPathExpr": {"volumeMounts": [{**MOUNT, "subPathExpr": "../$(SECRET_API_TOKEN)"}]},
}
COPIES: dict[str, dict[str, Any]] = {
    "terminationMessagePolicy": {"terminationMessagePolicy": "FallbackToLogsOnError"},
    "terminationMessagePath": {"terminationMessagePath": "/tmp/app.conf"},
    "livenessProbe.exec": {"livenessProbe": {"exec": {"command": ["check"]}}},
    "readinessProbe.exec": {"readinessProbe": {"exec": {"command": ["check"]}}},
    "startupProbe.exec": {"startupProbe": {"exec": {}}},
    "lifecycle.postStart.exec": {"lifecycle": {"postStart": {"exec": {"command": ["check"]}}}},
    "lifecycle.preStop.exec": {"lifecycle": {"preStop": {"exec": {"command": ["check"]}}}},
}


def refused(run_task: dict[str, Any], **binding: Any) -> dict[str, Reason]:
    """What is refused for good, by its field below the template's first container."""
    requirements = task_requirements(make_run(tasks=[run_task]), 0, bound_to(make_binding(**binding)))
    found = () if isinstance(requirements, TaskRequirements) else requirements
    assert all(item.permanent for item in found)
    return {
        item.field.removeprefix("spec.tasks[0].template.spec.").removeprefix("containers[0]."): item.reason
        for item in found
    }


def container(**fields: Any) -> dict[str, Any]:
    return template(containers=[{"name": "main", "image": "a/b:1", **fields}])


def test_every_field_of_the_list_has_its_case() -> None:
    assert {field.replace("[0]", "[]").replace("[1]", "[]") for field in EXPANSIONS} == set(EXPANDED)
    assert list(COPIES) == [field.path for field in COPIED]


@pytest.mark.parametrize("delivery", ["Secret", SEALED])
@pytest.mark.parametrize("field", [*EXPANSIONS, *COPIES])
def test_it_is_refused_in_a_container_with_secrets(field: str, delivery: str) -> None:
    bad = container(**{**EXPANSIONS, **COPIES}[field])

    assert refused(task(template=bad), delivery=delivery) == {field: Reason.TEMPLATE_REFUSED}


@pytest.mark.parametrize("kind", [{}, {"restartPolicy": "Always"}], ids=["init", "sidecar"])
@pytest.mark.parametrize("field", [*EXPANSIONS, *COPIES])
def test_an_init_container_and_a_sidecar_are_containers_too(field: str, kind: dict[str, Any]) -> None:
    early = {"name": "early", "image": "a/b", **kind, **{**EXPANSIONS, **COPIES}[field]}
    bad = template(initContainers=[early])

    assert refused(task(template=bad, containers=["early"])) == {
        f"initContainers[0].{field}": Reason.TEMPLATE_REFUSED
    }


@pytest.mark.parametrize("field", COPIES)
def test_a_secret_that_is_a_file_is_no_better(field: str) -> None:
    assert list(refused(task(template=container(**COPIES[field]), secrets=AS_FILE))) == [field]


@pytest.mark.parametrize("field", COPIES)
def test_a_container_without_secrets_may_have_it(field: str) -> None:
    fields = COPIES[field]
    beside = template(
        containers=[{"name": "main", "image": "a/b"}, {"name": "other", "image": "a/b", **fields}]
    )

    assert refused(task(template=beside)) == {}
    assert refused(task(template=container(**fields), secrets=[])) == {}


@pytest.mark.parametrize(
    "good",
    [
        {"args": ["$$(SECRET_API_TOKEN)", "$(OTHER)", "$(SECRET_API_TOKEN", "$SECRET_API_TOKEN"]},
        {"volumeMounts": [{**MOUNT, "subPathExpr": "$(POD_NAME)", "subPath": None}]},
        {"terminationMessagePolicy": "File", "terminationMessagePath": "/dev/termination-log"},
        {"livenessProbe": {"httpGet": {"port": 80}}, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
        {"livenessProbe": {"exec": None, "grpc": {"port": 80}}},
    ],
)
def test_what_shows_nothing_is_run(good: dict[str, Any]) -> None:
    assert refused(task(template=container(**good))) == {}


@pytest.mark.parametrize("secret", ["SECRET_API_TOKEN", "SECRET_OF_NOBODY"])
@pytest.mark.parametrize("secrets", [AS_FILE, [{"name": "api_token", "secret": "token"}], []])
def test_a_variable_of_the_task_that_means_a_secret_would_hold_its_name(
    secret: str, secrets: list[dict[str, str]]
) -> None:
    found = refused(task(env=[{"name": "COPY", "value": f"a$({secret})"}], secrets=secrets))

    assert found == {"spec.tasks[0].env[0].value": Reason.TEMPLATE_REFUSED}


@pytest.mark.parametrize("field", EXPANSIONS)
def test_what_means_a_secret_that_the_container_does_not_have_would_stay_as_it_is_written(field: str) -> None:
    fields = EXPANSIONS[field]
    beside = template(
        containers=[{"name": "main", "image": "a/b"}, {"name": "other", "image": "a/b", **fields}]
    )

    assert refused(task(template=beside)) == {f"containers[1].{field}": Reason.TEMPLATE_REFUSED}
    assert refused(task(template=container(**fields), secrets=[])) == {field: Reason.TEMPLATE_REFUSED}
    assert refused(task(template=container(**fields), secrets=AS_FILE)) == {field: Reason.TEMPLATE_REFUSED}


def test_a_plain_variable_may_have_any_name_and_be_referred_to() -> None:
    named = [{"name": "SECRET_SAUCE", "value": "mayonnaise"}]
    use = {"args": ["$(SECRET_SAUCE)", "$$(SECRET_OF_NOBODY)"]}

    assert refused(task(template=container(**use, env=named))) == {}
    assert refused(task(template=container(**use, envFrom=[{"configMapRef": {"name": "sauces"}}]))) == {}
    assert (
        refused(task(template=container(**use), env=[*named, {"name": "A", "value": "$(SECRET_SAUCE)"}]))
        == {}
    )


@pytest.mark.parametrize(
    "path",
    [
        "/var/runtime",
        "/var/runtime/secrets/token",
        "//var/runtime/secrets",
        "///var//runtime",
        "/var/./runtime",
        "/var/x/../runtime/input",
        "/../var/runtime",
        "var/runtime/secrets",
        "./var/runtime",
        "/var/runtime/",
        "/dev/termination-log",
        "/dev/./termination-log",
    ],
)
def test_no_way_to_write_a_path_covers_what_runkeys_puts_there(path: str) -> None:
    for field, key in (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")):
        bad = container(**{field: [{"name": "work", key: path}]})

        assert list(refused(task(template=bad))) == [f"{field}[0].{key}"]


@pytest.mark.parametrize("path", ["/var", "/var/runtime2", "/srv/var/runtime", "/var/runtime/../lib", "/dev"])
def test_other_paths_are_free(path: str) -> None:
    assert refused(task(template=container(volumeMounts=[{"name": "work", "mountPath": path}]))) == {}


@pytest.mark.parametrize("delivery", ["Secret", SEALED])
@pytest.mark.parametrize("of", ["main", "other"])
def test_no_container_mounts_a_volume_of_ours_by_its_name(of: str, delivery: str) -> None:
    """That would be a container which has no secrets, or one that reads them at another place."""
    taken: dict[str, dict[str, Any]] = {
        "volumeMounts[0].name": {"volumeMounts": [{"name": "runkeys-secrets", "mountPath": "/x"}]},
        "volumeDevices[0].name": {"volumeDevices": [{"name": "runkeys-pool-0", "devicePath": "/x"}]},
        "env[0].valueFrom.fileKeyRef": {
            "env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "runkeys-env", "key": "A"}}}]
        },
    }
    for where, fields in taken.items():
        both: list[dict[str, Any]] = [{"name": name, "image": "a/b"} for name in ("main", "other")]
        both[of == "other"] |= fields
        found = refused(task(template=template(containers=both), secrets=AS_FILE), delivery=delivery)

        assert [field.removeprefix("containers[1].") for field in found] == [where]


@pytest.mark.parametrize("field", ["hostPID", "shareProcessNamespace"])
def test_processes_of_others_are_seen_by_no_container_without_secrets(field: str) -> None:
    both = template(
        **{field: True}, containers=[{"name": "main", "image": "a"}, {"name": "other", "image": "a"}]
    )

    assert list(refused(task(template=both))) == [field]
    assert refused(task(template=both, containers=["main", "other"])) == {}
    assert refused(task(template=both, secrets=[])) == {}


def test_the_policy_is_written_from_the_same_list() -> None:
    spec = shown(Account.service_account("runkeys-system", "runkeys"))
    checks = [item["expression"] for item in spec["validations"]]

    for field in COPIED:
        [check] = [item for item in checks if f".?{'.?'.join(field.path.split('.'))}." in item]
        assert all(repr(value) in check for value in field.admitted)
    [texts] = [item["expression"] for item in spec["variables"] if item["name"] == "texts"]
    for path in EXPANDED:
        assert f"c.?{path.partition('[')[0]}.orValue([])" in texts
        assert path.rpartition("]")[2].replace(".", ".?") in texts
