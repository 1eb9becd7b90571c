"""Pods that ask for secrets themselves: the grammar, whom a binding admits, and what is in the way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from runkeys.api import SecretBinding
from runkeys.planning.access import PodSubject, Subject, denial, pod_denial
from runkeys.planning.asking_pod import (
    Asked,
    Parameter,
    asking_pod,
    parse_asked,
    parse_sealed,
    references_of,
    shape_refusal,
)
from runkeys.planning.bindings import Bindings
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SealedValue
from runkeys.sealing import PodParameter

SEALED = "rk1.sealed"
TEXT = "rk1.0123456789abcdef.AbC-_9"
SIGNER = "runkeys.dev/recipient"


def pod(
    asked: str = "keys/token",
    *,
    sealed: str = "",
    containers: str = "main",
    created_by: str = "alice",
    **spec: Any,
) -> dict[str, Any]:
    stamp = {
        "runkeys.dev/asked": asked,
        "runkeys.dev/sealed": sealed,
        "runkeys.dev/containers": containers,
        "runkeys.dev/created-by": created_by,
    }
    source = {"podCertificate": {"signerName": SIGNER, "userAnnotations": stamp}}
    return {
        "metadata": {
            "name": "task",
            "namespace": "team-a",
            "uid": "u1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "nightly", "runkeys.dev/secrets": "ask"},
            "ownerReferences": [
                {
                    "apiVersion": "argoproj.io/v1alpha1",
                    "kind": "Workflow",
                    "name": "w",
                    "uid": "w1",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "serviceAccountName": "runner",
            "restartPolicy": "Never",
            "nodeName": "n1",
            "containers": [{"name": "main", "image": "ghcr.io/acme/task:1"}],
            "initContainers": [{"name": "runkeys-open", "image": "localhost/operator:1"}],
            "volumes": [{"name": "runkeys-recipient", "projected": {"sources": [source]}}],
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def binding(*rules: dict[str, Any], **spec: Any) -> SecretBinding:
    return SecretBinding.parse(
        {
            "metadata": {"name": "keys", "namespace": "team-a"},
            "spec": {
                "secrets": [{"name": "token", "sealed": SEALED}],
                "access": list(rules),
                "delivery": "Sealed",
                **spec,
            },
        }
    )


def subject(**changes: Any) -> PodSubject:
    found = {
        "labels": {"app": "nightly"},
        "service_account": "runner",
        "images": ["ghcr.io/acme/task:1"],
        "created_by": "system:serviceaccount:argo:argo",
        "owner": ("argoproj.io", "Workflow"),
    }
    return PodSubject(**{**found, **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ibm/ibmq-token", [Asked("ibm", "ibmq-token", "SECRET_IBMQ_TOKEN", "")]),
        ("ibm/apiToken", [Asked("ibm", "apiToken", "SECRET_API_TOKEN", "")]),
        ("ibm/API_KEY", [Asked("ibm", "API_KEY", "SECRET_API_KEY", "")]),
        (
            " db/password=DB_PASSWORD ,\n db/cert@cert.pem ",
            [Asked("db", "password", "DB_PASSWORD", ""), Asked("db", "cert", "", "cert.pem")],
        ),
    ],
)
def test_what_is_asked_for(text: str, expected: list[Asked]) -> None:
    assert parse_asked(text) == tuple(expected)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "keys",
            "keys/",
            "/token",
            "keys/token,",
            "Keys/token",
            "keys/token=",
            "keys/token=1A",
            "keys/token@",
        ),
        *("keys/token@../up", "keys/token@a/b", "keys/token=A@b", "keys/to ken", "keys/token=A,keys/other=A"),
        *("keys/token@f,keys/other@f", "keys/token\x00", "keys/a/b"),
        ",".join(f"keys/token=V{number}" for number in range(33)),
        ",".join(f"keys{number}/token=V{number}" for number in range(9)),
        "keys/token," * 800,
    ],
)
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    assert parse_asked(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" \n", ()),
        (f"API_TOKEN={TEXT}", (Parameter("API_TOKEN", "", TEXT),)),
        (f" A={TEXT},\n@key.pem={TEXT} ", (Parameter("A", "", TEXT), Parameter("", "key.pem", TEXT))),
        *(
            (text, None)
            for text in (",", "A", "A=", f"={TEXT}", f"A={TEXT},", f"@../up={TEXT}", f"A={TEXT}=", TEXT)
        ),
        *(
            (text, None)
            for text in ("A=secret", "A=rk1.short.x", f"A={TEXT}\x00", f"1A={TEXT}", f"a/b={TEXT}")
        ),
        (",".join(f"V{number}={TEXT}" for number in range(9)), None),
        (f"A={TEXT}{'x' * 32768}", None),
    ],
)
def test_sealed_parameters(text: str, expected: tuple[Parameter, ...] | None) -> None:
    assert parse_sealed(text) == expected


def test_a_parameter_opens_for_the_pods_account_and_by_the_time_of_its_creation() -> None:
    asks = asking_pod(pod("", sealed=f"API_TOKEN={TEXT}"))
    assert asks is not None
    assert shape_refusal(asks) is None
    assert (asks.asked, asks.bindings) == ((), ())
    references = references_of(asks, Bindings({}, {}))
    assert not isinstance(references, Refusal)
    (found,) = references
    source = SealedValue(TEXT, PodParameter("team-a", "runner"), at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (found.key, found.source, found.sealed) == ("API_TOKEN", source, True)
    assert found.what == "the sealed parameter 'API_TOKEN'"


def test_a_pod_is_read_from_its_spec() -> None:
    found = asking_pod(pod("keys/token=TOKEN"))
    assert found is not None
    assert found.asked == (Asked("keys", "token", "TOKEN", ""),)
    assert found.containers == ("main",)
    assert found.subject.images == ["ghcr.io/acme/task:1"], (
        "the unseal container's image is the operator's own"
    )
    assert found.subject.created_by == "alice"
    assert found.subject.owner == ("argoproj.io", "Workflow")
    assert shape_refusal(found) is None
    assert asking_pod({**pod(), "spec": {**pod()["spec"], "volumes": []}}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"asked": "keys"},
        {"asked": ""},
        {"sealed": "API_TOKEN=in the clear"},
        {"asked": "keys/token=API_TOKEN", "sealed": f"API_TOKEN={TEXT}"},
        {"containers": ""},
        {"created_by": ""},
    ],
)
def test_a_pod_without_a_whole_stamp_gets_nothing(changes: dict[str, str]) -> None:
    found = asking_pod(pod(**changes))
    assert found is not None
    refused = shape_refusal(found)
    assert refused is not None
    assert refused.permanent


def test_a_container_that_reads_without_being_named_is_found() -> None:
    reference = {
        "fileKeyRef": {"volumeName": "runkeys-env", "path": "secrets.env", "key": "X", "optional": False}
    }
    other = {"name": "proxy", "image": "x", "env": [{"name": "X", "valueFrom": reference}]}
    main = {"name": "main", "image": "y", "env": [{"name": "X", "valueFrom": reference}]}
    environment = {"name": "runkeys-env", "emptyDir": {"medium": "Memory"}}
    volumes = [*pod()["spec"]["volumes"], environment]
    found = asking_pod(pod(containers="main", volumes=volumes) | {})
    assert found is not None
    wrong = asking_pod({**pod(), "spec": {**pod()["spec"], "volumes": volumes, "containers": [main, other]}})
    assert wrong is not None
    refused = shape_refusal(wrong)
    assert refused is not None
    assert "container proxy would read the secrets" in refused.message


@pytest.mark.parametrize(
    ("rule", "changes", "says"),
    [
        ({"runSelector": {}}, {}, "the rule is for runs"),
        ({"images": ["ghcr.io/**"]}, {}, "the rule is for runs"),
        ({"pods": {"selector": {"matchLabels": {"app": "x"}}}}, {}, "pods.selector does not match"),
        (
            {"pods": {"createdBy": ["alice"]}},
            {},
            "system:serviceaccount:argo:argo, which created the pod, is not in pods.createdBy",
        ),
        (
            {"pods": {"ownedBy": [{"apiGroup": "batch", "kind": "Job"}]}},
            {},
            "Workflow.argoproj.io, which controls the pod, is not in pods.ownedBy",
        ),
        (
            {"pods": {"ownedBy": [{"apiGroup": "batch", "kind": "Job"}]}},
            {"owner": None},
            "nothing, which controls",
        ),
        ({"pods": {}, "serviceAccountNames": ["other"]}, {}, "service account runner is not in"),
        ({"pods": {}, "images": ["quay.io/*"]}, {}, "matches no pattern of images"),
    ],
)
def test_a_rule_that_does_not_admit_a_pod_says_why(
    rule: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    reason = pod_denial(binding(rule), subject(**changes))
    assert reason is not None
    assert says in reason


def test_a_rule_that_matches_admits_the_pod() -> None:
    whole = {
        "pods": {
            "selector": {"matchLabels": {"app": "nightly"}},
            "createdBy": ["system:serviceaccount:argo:argo"],
            "ownedBy": [{"apiGroup": "argoproj.io", "kind": "Workflow"}],
        },
        "serviceAccountNames": ["runner"],
        "images": ["ghcr.io/acme/*"],
    }
    assert pod_denial(binding(whole), subject()) is None
    assert pod_denial(binding({"runSelector": {}}, {"pods": {}}), subject()) is None


def test_a_rule_for_pods_admits_no_run() -> None:
    a_run = Subject({}, "runner", ["ghcr.io/acme/task:1"], "alice")
    reason = denial(binding({"pods": {}}), a_run)
    assert reason is not None
    assert "the rule is for pods" in reason


def test_a_personal_binding_admits_no_pod() -> None:
    reason = pod_denial(binding(owner={"username": "alice"}), subject(created_by="alice"))
    assert reason is not None
    assert "personal binding of alice" in reason


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Bindings({}, {}), Reason.BINDING_NOT_FOUND),
        (Bindings({}, {"keys": "spec.secrets"}), Reason.BINDING_INVALID),
        (
            Bindings({"keys": binding({"pods": {}}, secrets=[{"name": "x", "sealed": SEALED}])}, {}),
            Reason.SECRET_NOT_FOUND,
        ),
        (Bindings({"keys": binding({"runSelector": {}})}, {}), Reason.ACCESS_DENIED),
        (
            Bindings({"keys": binding({"pods": {}}, secrets=[{"name": "token", "template": "{{ x }}"}])}, {}),
            Reason.BINDING_INVALID,
        ),
        (Bindings({"keys": binding({"pods": {}}, delivery="Secret")}, {}), Reason.SEALED_UNAVAILABLE),
    ],
)
def test_what_a_binding_can_mend_leaves_the_pod_waiting(found: Bindings, reason: Reason) -> None:
    asks = asking_pod(pod())
    assert asks is not None
    refused = references_of(asks, found)
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.permanent) == (reason, False)


def test_references_are_sealed_and_named_as_asked() -> None:
    asks = asking_pod(pod("keys/token=A, keys/token@token.txt"))
    assert asks is not None
    references = references_of(asks, Bindings({"keys": binding({"pods": {}})}, {}))
    assert not isinstance(references, Refusal)
    assert [(item.key, item.sealed) for item in references] == [("A", True), ("file.token.txt", True)]
