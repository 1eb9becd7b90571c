"""What sealed delivery cannot do is said when the run is made, and never is a Secret made instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.cluster.client import Object
from testing.cluster.node_layout import NodeOptions
from testing.namespace import (
    CHECKS_ITS_VARIABLE,
    TASK_IMAGE,
    Team,
    condition,
    make_namespace,
    phase,
    python,
    team_in,
)
from testing.operators import install_crds
from testing.people import sealed_entry
from tests.e2e.conftest import OwnNode
from tests.e2e.delivery.conftest import IMAGE, SEALED_TEAM
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

LIMITS = {
    "quote": ("it's", "single quote"),
    "empty": ("", "is empty"),
    "carriage return": ("a\r\nb", "carriage return"),
    "line": ("x" * 65_100, "line of 65100 bytes"),
}


def check_refused(team: Team, reason: str, says: str, field: str) -> None:
    found = team.wait_condition("job", "Stalled", reason=reason)
    message = condition(found, "Stalled")["message"]
    assert message.startswith(field), message
    assert says in message
    assert phase(found) == "Pending", "it can still be mended"
    assert team.jobs() == []
    assert team.secret_story() == []


@pytest.mark.parametrize(("value", "says"), LIMITS.values(), ids=LIMITS)
def test_a_value_that_would_not_arrive_as_it_is_is_refused_and_goes_as_a_file(
    sealed_team: Callable[..., Team], value: str, says: str
) -> None:
    team = sealed_team(value=value)
    team.make_run()
    check_refused(team, "ValueNotCarried", says, "spec.tasks[0].secrets[0].secret: ")
    # the remedy that the message names
    secrets = [{"name": "api_token", "secret": "token", "file": "token"}]
    code = (
        "import hashlib;"
        "print('sha256', hashlib.sha256(open('/var/runtime/secrets/token', 'rb').read()).hexdigest())"
    )
    found = team.make_run("as-file", task={"secrets": secrets}, command=["python3", "-c", code])
    found = team.wait_phase("as-file", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == f"sha256 {team.digest}\n"


def test_more_than_a_certificate_carries_is_refused(sealed_team: Callable[..., Team]) -> None:
    team = sealed_team()
    half = "y" * 40_000
    entries = [sealed_entry(team, half, binding="big", entry=name) for name in ("one", "two")]
    team.make_binding("big", secrets=entries, delivery="Sealed")
    secrets = [{"name": name, "secret": name} for name in ("one", "two")]
    team.make_run(bindings=[{"name": "big"}], task={"secrets": secrets})
    check_refused(team, "ValueTooLarge", "80036 bytes together", "spec.tasks[0].secrets: ")


def test_without_the_option_it_is_refused_and_goes_on_once_it_is_there(
    new_team: TeamMaker,
    opener: None,  # noqa: ARG001
) -> None:
    team = new_team(**SEALED_TEAM)
    team.make_binding(secrets=[sealed_entry(team, team.value)])
    team.make_run(task={"delivery": "Sealed"})
    check_refused(
        team, "SealedDeliveryUnavailable", "sealedDelivery.enabled of the chart", "spec.tasks[0].delivery: "
    )
    team.operator.stop()
    team.operator.arguments += IMAGE
    team.operator.start()
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
    assert team.secret_story() == []


def test_without_the_rights_it_is_refused(new_team: TeamMaker) -> None:
    team = new_team(*IMAGE, sources=())
    team.operator.wait_says("sealed delivery is not available")
    team.make_binding(secrets=[sealed_entry(team, team.value)], delivery="Sealed")
    team.make_run()
    check_refused(
        team,
        "SealedDeliveryUnavailable",
        "patch podcertificaterequests.certificates.k8s.io/status",
        "spec.tasks[0].delivery: a binding requires delivery: Sealed",
    )


def test_on_a_cluster_without_the_feature_it_is_refused(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node(NodeOptions(api_server=("--feature-gates=PodCertificateRequest=false",)))
    install_crds(node)
    namespace = make_namespace(node.client, "without")
    with team_in(node, namespace, tmp_path, *IMAGE, **SEALED_TEAM) as team:
        team.operator.start()
        team.make_binding(secrets=[sealed_entry(team, team.value)], delivery="Sealed")
        team.make_run()
        check_refused(team, "SealedDeliveryUnavailable", "Kubernetes 1.37", "spec.tasks[0].delivery: ")
        # the other way goes as ever
        team.make_binding("plain", secrets=[sealed_entry(team, team.value, binding="plain")])
        team.make_run("plain", bindings=[{"name": "plain"}])
        node.client.wait_for(
            "jobs", team.object_name(team.run("plain")), namespace, lambda job: job["metadata"]["uid"]
        )


# quotas and LimitRanges of the namespace, which know nothing of the container that Runkeys adds

QUOTA = {"kind": "ResourceQuota", "spec": {"hard": {"limits.cpu": "2", "limits.memory": "1Gi"}}}
DEFAULTS = {
    "kind": "LimitRange",
    "spec": {
        "limits": [
            {
                "type": "Container",
                "default": {"cpu": "200m", "memory": "128Mi"},
                "defaultRequest": {"cpu": "20m"},
                "max": {"cpu": "1"},
            }
        ]
    },
}
LEAST = {"kind": "LimitRange", "spec": {"limits": [{"type": "Container", "min": {"memory": "48Mi"}}]}}
SIZED = {
    "name": "main",
    "image": TASK_IMAGE,
    "command": python(CHECKS_ITS_VARIABLE),
    "resources": {"limits": {"cpu": "200m", "memory": "128Mi"}},
}


def limit(team: Team, *objects: Object) -> None:
    for item in objects:
        metadata = {"name": "team", "namespace": team.namespace}
        team.client.create({"apiVersion": "v1", "metadata": metadata, **item})
        if item["kind"] == "ResourceQuota":
            # Until its controller has counted, it refuses every pod.
            team.client.wait_for(
                "resourcequotas", "team", team.namespace, lambda quota: quota.get("status", {}).get("used")
            )


def check_arrives(team: Team, name: str) -> None:
    found = team.wait_phase(name, "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.output(found) == f"sha256 {team.digest}\n"


def test_what_a_limit_range_fills_in_is_no_change_of_the_pod(sealed_team: Callable[..., Team]) -> None:
    team = sealed_team()
    limit(team, DEFAULTS, QUOTA)
    check_arrives(team, team.make_run()["metadata"]["name"])
    (opener,) = team.pod(team.run())["spec"]["initContainers"]
    assert opener["resources"]["limits"] == {"cpu": "200m", "memory": "64Mi"}, "it was filled in"


@pytest.mark.parametrize(
    ("rule", "says", "resources"),
    [
        (QUOTA, "must specify limits.cpu for: runkeys-open", {"limits": {"cpu": "100m", "memory": "64Mi"}}),
        (
            LEAST,
            "minimum memory usage per Container is 48Mi",
            {"requests": {"memory": "48Mi"}, "limits": {"memory": "64Mi"}},
        ),
    ],
    ids=["quota", "least"],
)
def test_resources_that_do_not_fit_are_named_and_can_be_set(
    sealed_team: Callable[..., Team], rule: Object, says: str, resources: Object
) -> None:
    team = sealed_team()
    limit(team, rule)
    # The control: it is the container of sealed delivery that does not fit.
    team.make_binding("plain", secrets=[sealed_entry(team, team.value, binding="plain")])
    team.make_run("plain", pod={"containers": [SIZED]}, bindings=[{"name": "plain"}])
    check_arrives(team, "plain")
    team.make_run("refused", pod={"containers": [SIZED]})
    found = team.wait_condition("refused", "Stalled", reason="PodNotCreated")
    message = condition(found, "Stalled")["message"]
    assert says in message
    assert "init container runkeys-open" in message
    assert "requests.cpu 10m, requests.memory 32Mi, limits.memory 64Mi" in message
    assert "sealedDelivery.resources" in message

    team.operator.stop()
    team.operator.arguments += ("--sealed-delivery-resources", json.dumps(resources))
    team.operator.start()
    team.make_run("fits", pod={"containers": [SIZED]})
    check_arrives(team, "fits")
