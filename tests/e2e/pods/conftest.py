"""Fixtures: a namespace whose operator gives secrets to pods that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testing.cluster import images
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import ApiError, Object
from testing.namespace import CHECKS_ITS_VARIABLE, TASK_IMAGE, Team, python
from testing.operators import wait_believed
from testing.people import may_use, sealed_entry
from tests.e2e.runs.conftest import TeamMaker, new_team

__all__ = ["new_team"]

ACCOUNT = "runner"
_REPOSITORY, _, _TAG = images.OPERATOR_IMAGE.rpartition(":")
SETS = (
    "sealedDelivery.enabled=true",
    "pods.enabled=true",
    f"image.repository={_REPOSITORY}",
    f"image.tag={_TAG}",
)
ARGUMENTS = ("--sealed-delivery-image", images.OPERATOR_IMAGE, "--pods")


@pytest.fixture(scope="session")
def unsealer(cluster: Cluster) -> None:
    """The image that unseals in pods is on the node."""
    cluster.load_image(images.operator_image())


@pytest.fixture
def pods_team(new_team: TeamMaker, unsealer: None) -> Callable[..., Team]:  # noqa: ARG001
    """Make a team with one sealed value, a binding that admits pods, and a service account that may use it."""

    def make(**options: Any) -> Team:
        team = new_team(*ARGUMENTS, **{"sets": SETS, "sources": (), **options})
        furnish(team)
        return team

    return make


@pytest.fixture
def team(pods_team: Callable[..., Team]) -> Team:
    """Such a team, with the operator running."""
    return pods_team()


def furnish(team: Team) -> None:
    """Create a sealed value, a binding that admits pods, and a service account that may use it."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    team.client.create({**account, "metadata": {"name": ACCOUNT, "namespace": team.namespace}})
    may_use(team, f"system:serviceaccount:{team.namespace}:{ACCOUNT}", "keys", "use-keys-by-pods")
    team.make_binding(secrets=[sealed_entry(team, team.value)], access=[{"pods": {}}], delivery="Sealed")
    wait_asking(team)


def wait_asking(team: Team) -> None:
    """Wait until the API server goes by the policies on pods that ask."""
    # Once it has what admission adds, all that is wrong with this pod is its account.
    probe = asking(team, "probe", asked="no-such-binding/token", serviceAccountName="default")
    wait_until("the policies on pods that ask", lambda: "may not use SecretBinding" in refusal(team, probe))
    wait_believed(team.cluster, team.namespace)


def asking(
    team: Team,
    name: str = "task",
    *,
    asked: str = "keys/token=SECRET_API_TOKEN",
    code: str = CHECKS_ITS_VARIABLE,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> Object:
    """A pod that asks for the team's value and prints its hash, changed by ``spec``."""
    container = {"name": "main", "image": TASK_IMAGE, "command": python(code)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": team.namespace,
            "labels": {"runkeys.dev/secrets": "ask", **(labels or {})},
            "annotations": {"runkeys.dev/secrets": asked, **(annotations or {})},
        },
        "spec": {
            "serviceAccountName": ACCOUNT,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            **spec,
        },
    }


def refusal(team: Team, pod: Object) -> str:
    """Why the API server refuses a pod; empty if it does not. Nothing is created."""
    try:
        team.client.create(pod, dryRun="All")
    except ApiError as error:
        if error.status != 403:
            raise
        return str(error)
    return ""


def wait_ended(team: Team, name: str) -> Object:
    """The pod, once no container of it runs; shows its Events and the operator's log if that never comes."""

    def ended(pod: Object) -> bool:
        return pod["status"].get("phase") in ("Succeeded", "Failed")

    try:
        return team.client.wait_for("pods", name, team.namespace, ended)
    except AssertionError as error:
        told = [f"{item['reason']}: {item['message']}" for item in events_of(team, name)]
        raise AssertionError(f"{error}\n{told}\n{team.operator.text()[-4000:]}") from None


def events_of(team: Team, name: str) -> list[Object]:
    """The Events on a pod."""
    found = team.client.list("events", team.namespace, fields=f"involvedObject.name={name}")
    return [item for item in found if item["involvedObject"]["kind"] == "Pod"]
