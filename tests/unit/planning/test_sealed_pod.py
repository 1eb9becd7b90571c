"""Who asks for sealed delivery gets a pod in which only the opener can reach the key, or is told why not."""

from __future__ import annotations

from typing import Any

import pytest

from runkeys.api.binding import SEALED, SECRET
from runkeys.names import UNSEALER
from runkeys.planning import manifests
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import (
    NO_SUPPORT,
    SealedSupport,
    TaskRequirements,
    support_refusal,
    task_requirements,
)
from runkeys.sealing import unseal
from tests.unit.planning.objects import bound_to, make_binding, make_run, task, template

IMAGE = "registry.example/runkeys-operator:1"
BINDINGS = bound_to(make_binding(delivery=SEALED))
BOTH = [{"name": "api_token", "secret": "token"}, {"name": "sa", "secret": "token", "file": "sa.json"}]


def refusals(pod: dict[str, Any], bindings: Any = BINDINGS) -> list[Refusal]:
    found = task_requirements(make_run(tasks=[task(template=pod)]), 0, bindings)
    return [] if isinstance(found, TaskRequirements) else list(found)


def pod_of(**fields: Any) -> dict[str, Any]:
    run = make_run(tasks=[task(**fields)])
    requirements = task_requirements(run, 0, BINDINGS)
    assert isinstance(requirements, TaskRequirements), requirements
    job = manifests.job(run, 0, 1, requirements, support=SealedSupport(image=IMAGE))
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(
    ("of_binding", "of_task", "then"),
    [
        (None, None, SECRET),
        (None, SECRET, SECRET),
        (None, SEALED, SEALED),
        (SECRET, SEALED, SEALED),
        (SEALED, None, SEALED),
        (SEALED, SECRET, SEALED),
    ],
)
def test_either_may_demand_it_and_neither_can_take_it_back(
    of_binding: str | None, of_task: str | None, then: str
) -> None:
    asked = {"delivery": of_task} if of_task else {}
    binding = make_binding(**({"delivery": of_binding} if of_binding else {}))
    requirements = task_requirements(make_run(tasks=[task(**asked)]), 0, bound_to(binding))
    assert isinstance(requirements, TaskRequirements)
    assert requirements.delivery == then
    assert all(item.sealed == (then == SEALED) for item in requirements.references)


def test_a_task_without_secrets_has_nothing_to_deliver() -> None:
    requirements = task_requirements(
        make_run(tasks=[task(secrets=[], delivery=SEALED)]), 0, bound_to(make_binding())
    )
    assert isinstance(requirements, TaskRequirements)
    assert requirements.delivery == SECRET


@pytest.mark.parametrize(
    ("delivery", "support", "refused"),
    [
        (SECRET, NO_SUPPORT, False),
        (SEALED, SealedSupport(image=IMAGE), False),
        (SEALED, NO_SUPPORT, True),
        (SEALED, SealedSupport(problem="the API server is too old"), True),
    ],
)
def test_where_it_cannot_be_done_the_task_waits(delivery: str, support: SealedSupport, refused: bool) -> None:
    run = make_run(tasks=[task(delivery=delivery)])
    requirements = task_requirements(run, 0, bound_to(make_binding()))
    assert isinstance(requirements, TaskRequirements)
    found = support_refusal(run, 0, requirements, support)
    if not refused:
        assert found is None
        return
    assert found is not None
    assert (found.reason, found.field, found.permanent) == (
        Reason.SEALED_UNAVAILABLE,
        "spec.tasks[0].delivery",
        False,
    )
    assert support.problem in str(found)


def test_nothing_in_the_pod_refers_to_a_secret() -> None:
    assert "secretKeyRef" not in str(pod_of(secrets=BOTH))
    assert "secretName" not in str(pod_of(secrets=BOTH))


def test_only_the_opener_mounts_the_key_and_the_variables() -> None:
    pod = pod_of(secrets=BOTH, template=template(initContainers=[{"name": "before", "image": "busybox:1"}]))
    ours, before = pod["initContainers"]
    (main,) = pod["containers"]
    assert (ours["name"], ours["image"], before["name"]) == (UNSEALER, IMAGE, "before")
    assert "volumeMounts" not in before
    mine = {mount["name"]: mount for mount in ours["volumeMounts"]}
    assert set(mine) == {"runkeys-recipient", "runkeys-env", "runkeys-secrets"}
    (files,) = main["volumeMounts"]
    assert (files["name"], files["readOnly"]) == ("runkeys-secrets", True)
    variable = next(item for item in main["env"] if item["name"] == "SECRET_API_TOKEN")
    assert variable["valueFrom"]["fileKeyRef"] == {
        "volumeName": "runkeys-env",
        "path": "secrets.env",
        "key": "SECRET_API_TOKEN",
        "optional": False,
    }


def test_what_is_opened_is_in_memory_and_the_key_is_asked_for_once() -> None:
    volumes = {item["name"]: item for item in pod_of(secrets=BOTH)["volumes"]}
    for name in ("runkeys-env", "runkeys-secrets"):
        assert volumes[name]["emptyDir"]["medium"] == "Memory"
    (source,) = volumes["runkeys-recipient"]["projected"]["sources"]
    assert source["podCertificate"]["signerName"] == "runkeys.dev/recipient"
    # Longer than any pod may run (604,800 s), so that there is no second request for it.
    assert source["podCertificate"]["maxExpirationSeconds"] > 604_800


def test_the_opener_passes_restricted_pod_security() -> None:
    (ours,) = pod_of()["initContainers"]
    context = ours["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "runAsUser" not in context
    (ours,) = pod_of(template=template(securityContext={"runAsUser": 0}))["initContainers"]
    assert ours["securityContext"]["runAsUser"] != 0


def test_the_opener_is_found_where_the_image_has_it() -> None:
    (ours,) = pod_of()["initContainers"]
    assert ours["command"] == ["python3", "-I", "-S", "/app/runkeys/sealing/unseal.py"]
    assert unseal.__file__.endswith("/runkeys/sealing/unseal.py")


def certificate(signer: str) -> dict[str, Any]:
    return {"name": "own", "projected": {"sources": [{"podCertificate": {"signerName": signer}}]}}


def containing(**fields: Any) -> dict[str, Any]:
    return template(containers=[{"name": "main", "image": "i:1", **fields}])


@pytest.mark.parametrize(
    ("pod", "field"),
    [
        (template(volumes=[certificate("runkeys.dev/recipient")]), "spec.volumes[0]"),
        (
            containing(volumeMounts=[{"name": "runkeys-recipient", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            containing(volumeMounts=[{"name": "runkeys-env", "mountPath": "/x"}]),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (
            template(
                initContainers=[
                    {
                        "name": "a",
                        "image": "i:1",
                        "volumeMounts": [{"name": "runkeys-env", "mountPath": "/x"}],
                    }
                ]
            ),
            "spec.initContainers[0].volumeMounts[0].name",
        ),
        (
            containing(
                env=[{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "runkeys-env", "key": "B"}}}]
            ),
            "spec.containers[0].env[0].valueFrom.fileKeyRef",
        ),
        (template(initContainers=[{"name": UNSEALER, "image": "i:1"}]), "spec.initContainers[0].name"),
    ],
    ids=["own request", "key", "variables", "variables, init", "variable", "poses as the opener"],
)
def test_a_template_that_reaches_for_it_is_refused(pod: dict[str, Any], field: str) -> None:
    fields = [item.field for item in refusals(pod)]
    assert f"spec.tasks[0].template.{field}" in fields
    assert all(item.permanent for item in refusals(pod))


def test_other_signers_and_files_are_the_tasks_own_business() -> None:
    assert refusals(template(volumes=[certificate("example.org/mtls")])) == []
    own = containing(
        env=[{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "mine", "path": "p", "key": "B"}}}]
    )
    assert refusals(own) == []
