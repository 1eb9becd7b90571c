"""A team whose values are in clouds, by providers of the tests that run beside the operator."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import Team, condition, phase
from testing.stores import csi
from testing.stores.csi import SHAPES, Clouds, Shape
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.stores.conftest import ACCOUNT, open_tokens

AUDIENCES = (*(shape.audience for shape in SHAPES), "bao")
SETS = ("stores.enabled=true", f"stores.audiences={{{','.join(AUDIENCES)}}}")
READ_ALL = [f"--store-audience={audience}" for audience in AUDIENCES]


class CloudTeam(Team):
    """A team with a SecretStore for each cloud, named by its namespace and the cloud."""

    clouds: Clouds

    @property
    def account(self) -> str:
        """The account of its pods."""
        return f"system:serviceaccount:{self.namespace}:{ACCOUNT}"

    @property
    def content(self) -> str:
        """What is in each cloud: a JSON object with the value under ``token``."""
        return json.dumps({"token": self.value, "port": 5432})

    def path(self, shape: Shape) -> str:
        """Where it is."""
        return shape.path.format(self.namespace)

    def entry(self, shape: Shape, name: str = "token", **changed: Any) -> Object:
        """An entry of a binding that is its value, changed by fields of ``value``; None takes one away."""
        value = {
            "store": f"{self.namespace}-{shape.name}",
            "role": "reader",
            "path": self.path(shape),
            "field": "token",
            **changed,
        }
        return {"name": name, "value": {key: item for key, item in value.items() if item is not None}}

    def bind(self, *entries: Object, name: str = "keys", **spec: Any) -> None:
        """Make a binding for every run."""
        self.make_binding(name, secrets=list(entries), **spec)

    def make_store_run(self, name: str = "job", **changed: Any) -> Object:
        """A run as the account that the namespace opens to stores."""
        return self.make_run(name, **{"serviceAccountName": ACCOUNT, **changed})

    def stalled(self, name: str, reason: str) -> str:
        """Wait until the run says why it waits, and return that."""
        found = self.wait_condition(name, "Stalled", "True", reason)
        assert self.live_secrets() == []
        message = str(condition(found, "Stalled")["message"])
        assert self.value not in message
        return message


@pytest.fixture
def cloud_team(
    new_team: TeamMaker, cluster: Cluster, request: pytest.FixtureRequest
) -> Iterator[Callable[..., CloudTeam]]:
    """Make teams whose values are in clouds; further arguments and values of the chart come last."""
    made: list[str] = []

    def make(*arguments: str, sets: tuple[str, ...] = ()) -> CloudTeam:
        clouds = request.getfixturevalue("clouds")
        providers = f"--store-providers={clouds.folder}"
        plain = new_team(*READ_ALL, providers, *arguments, sets=(*SETS, *sets), sources=())
        team = CloudTeam(plain.cluster, plain.namespace, plain.operator, plain.value)
        team.clouds = clouds
        for shape in SHAPES:
            clouds.put(team.path(shape), team.content)
            made.append(f"{team.namespace}-{shape.name}")
            team.client.create(csi.store(made[-1], shape))
        clouds.allow(team.account, *(team.path(shape) for shape in SHAPES))
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        for name in (ACCOUNT, "other"):
            team.client.create({**account, "metadata": {"name": name, "namespace": team.namespace}})
        open_tokens(team, ACCOUNT, "other")
        return team

    yield make
    for name in made:
        cluster.client.delete("secretstores", name, missing_ok=True)


@pytest.fixture
def clouds(cluster: Cluster) -> Iterator[Clouds]:
    """A provider of each shape."""
    with csi.running(cluster.client, *SHAPES) as found:
        yield found


@pytest.fixture
def team(cloud_team: Callable[..., CloudTeam]) -> CloudTeam:
    """Such a team, with the operator running."""
    return cloud_team()


def succeeds(team: CloudTeam, name: str = "job") -> Object:
    found = team.wait_phase(name, "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    return found
