"""Who may what, as tests/e2e/trust/test_matrix.py has it, where no policy fills in who makes a run: the client does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import Team, run
from testing.operators import requester_of as requester
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust import golden
from tests.e2e.trust.actors import Actor
from tests.e2e.trust.test_matrix import ATTEMPTS, bindings_of, prepared

pytestmark = pytest.mark.e2e

FORGED = "create with a forged requester"
"""Newer servers put the right one in; here it stays what it is, and is refused."""


class FillsIn(KubeClient):
    """Puts itself into runs that do not say who makes them, as the command line does."""

    def __init__(self, client: KubeClient) -> None:
        super().__init__(client.server, client.ca_file, kubeconfig=client._kubeconfig, headers=client.headers)

    def create(self, manifest: Object, namespace: str | None = None, **query: str | bool) -> Object:
        """Create an object."""
        if manifest["kind"] == "WorkflowRun":
            manifest = {**manifest, "spec": {"requester": requester(self), **manifest["spec"]}}
        return super().create(manifest, namespace, **query)


def everybody(team: Team) -> list[Actor]:
    return [replace(actor, client=FillsIn(actor.client)) for actor in prepared(team)]


def reviewed() -> dict[str, str]:
    """The messages in the golden file of the newest server."""
    text = (golden._FOLDER / "matrix.txt").read_text()
    blocks = [block.split("\n", 1) for block in text.strip("\n").split("\n\n")]
    return {row: " ".join(message.split()) for row, message in blocks}


def test_each_cell_is_refused_and_says_the_same_as_on_the_newest_server(new_team: TeamMaker) -> None:
    team, expected = new_team(start=False), reviewed()
    rows: dict[str, str] = {}
    for actor in everybody(team):
        for name, attempt in ATTEMPTS.items():
            with pytest.raises(ApiError) as refused:
                attempt.act(actor.client, team, actor.kind)
            rows[f"{name} / {actor.kind}"] = " ".join(golden.told(refused.value.message, team).split())
    assert rows.keys() == expected.keys()
    forged = {row for row in rows if row.startswith(FORGED)}
    assert {row: rows[row] for row in rows.keys() - forged} == {
        row: expected[row] for row in expected.keys() - forged
    }
    assert len(forged) == 5
    for row in forged:
        assert rows[row].startswith("[runkeys-use] spec.requester must be "), rows[row]
        assert "with exactly these groups: " in rows[row]


def test_control_with_the_right_the_same_goes_through(new_team: TeamMaker) -> None:
    team = new_team(start=False)
    for actor in everybody(team):
        actor.may_use(*bindings_of(actor))
        for name, attempt in ATTEMPTS.items():
            if attempt.requirements and name != FORGED:
                assert attempt.act(actor.client, team, actor.kind)
            else:
                with pytest.raises(ApiError):
                    attempt.act(actor.client, team, actor.kind)


def test_without_a_requester_nobody_makes_a_run(new_team: TeamMaker) -> None:
    team = new_team(start=False)
    team.make_binding()
    for client in (team.client, team.client.as_user("alice", "system:masters")):
        with pytest.raises(ApiError, match=r"spec\.requester must be .*Kubernetes 1\.36 and later"):
            client.create(run(team.namespace))
