"""What was made while the policies were away is not believed once they are back: anybody can have made it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runkeys.names import PUBLIC_KEYS
from runkeys_operator.checks.admission import Period, Record
from runkeys_operator.checks.policies import KEPT
from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.namespace import HELD_BACK, Team, condition, phase
from testing.operators import installed_policies
from testing.people import Person, may_use, sealed_entry
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.sealed.test_reveal import Question, ask, asker
from tests.e2e.trust.golden import check_golden, plain

pytestmark = pytest.mark.e2e

GONE = ("use", "reveal", "requester")
"""What says who makes a run, and who asks."""


def somebody_and_bob(team: Team) -> tuple[Person, Person]:
    """Alice, who may use and reveal ``keys``, and bob, who may make runs and ask."""
    team.make_binding(secrets=[sealed_entry(team, team.value)])
    alice = asker(team, "alice", reveal=("keys",))
    may_use(team, "alice", "keys")
    return alice, asker(team, "bob")


def forged(bob: Person) -> tuple[Object, Question]:
    """A run and a question of bob's that say they are alice's."""
    as_alice = replace(bob, name="alice")
    made, question = as_alice.submit("forged"), ask(as_alice)
    for item in (made, question.made):
        assert item["spec"]["requester"]["username"] == "alice", "it was replaced"
    return made, question


def seconds(message: str, team: Team) -> str:
    """As in the golden file: times differ from run to run."""
    words = plain(message, team).split(" ")
    return " ".join("TIME" + word[20:] if word[:2] == "20" and word[19:20] == "Z" else word for word in words)


def test_what_is_forged_while_they_are_away_is_refused_when_they_are_back(
    new_team: TeamMaker, tmp_path: Path
) -> None:
    team, rows = new_team("--sweep-seconds", "1"), {}
    alice, bob = somebody_and_bob(team)
    held = alice.submit("held", pod=HELD_BACK)
    team.pod(held)
    with team.without_policies(*GONE):
        wait_until("the operator to notice", lambda: "so nothing limits" in team.operator.text())
        _, question = forged(bob)
        status = question.answer()
        assert (status.get("sealed"), status["reason"]) == (None, "PoliciesMissing")
        rows["asked while they are away"] = plain(status["message"], team)
        team.wait_condition("forged", "Stalled", reason="PoliciesMissing")
    found = team.wait_phase("forged", "Failed", "Succeeded")
    assert (phase(found), condition(found, "Stalled")["reason"]) == ("Failed", "RequesterUnknown")
    rows["a run"] = seconds(condition(found, "Stalled")["message"], team)
    assert team.secret_story() == []
    # what was made before goes on, and what is made now is believed
    team.let_go(held)
    alice.submit("now")
    for name in ("held", "now"):
        found = team.wait_phase(name, "Succeeded", "Failed")
        assert phase(found) == "Succeeded", found["status"]
    again = ask(alice)
    assert again.open(again.answer()["sealed"]) == team.value
    check_golden("while-away.txt", rows, tmp_path)


def forged_while_nobody_looked(team: Team) -> None:
    """The policies were away and are back before an operator runs again."""
    _, bob = somebody_and_bob(team)
    team.operator.stop_cleanly()
    with team.without_policies(*GONE, believed=False):
        forged(bob)


def test_an_operator_that_was_away_as_well_does_not_believe_it_either(new_team: TeamMaker) -> None:
    team = new_team()
    team.operator.wait_serving()
    forged_while_nobody_looked(team)
    team.operator.start()
    found = team.wait_phase("forged", "Failed", "Succeeded")
    assert (phase(found), condition(found, "Stalled")["reason"]) == ("Failed", "RequesterUnknown")
    assert team.secret_story() == []


def test_control_with_a_record_that_they_were_always_there_it_is_believed(new_team: TeamMaker) -> None:
    """Whoever may write in the operator's namespace can make it believe: nothing else tells the run from alice's."""
    team = new_team()
    team.operator.wait_serving()
    forged_while_nobody_looked(team)
    policies = {
        f"{kind}/{item['metadata']['name']}": (item["metadata"]["uid"], item["metadata"]["generation"])
        for kind, item in installed_policies(team.cluster, team.namespace)
    }
    long_ago = datetime(2000, 1, 1, tzinfo=UTC)
    record = Record((Period(long_ago, None, (team.namespace,)),), policies, datetime.now(UTC))
    change = {"metadata": {"annotations": {KEPT: record.wire()}}}
    team.client.patch("configmaps", PUBLIC_KEYS, team.namespace, change)
    team.operator.start()
    found = team.wait_phase("forged", "Failed", "Succeeded")
    assert phase(found) == "Succeeded", found["status"]
    assert team.secret_story() == ["made", "gone"]
