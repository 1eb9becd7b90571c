"""Somebody copies sealed text that everybody may read, and puts it where they can: it opens nothing.

The attacker has the chart's role for users and nothing else: no ``use`` but of a binding of their own, no Secrets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from runkeys.sealing import NamespaceEntry
from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, Object
from testing.namespace import Team, binding, condition
from testing.people import Person, give, may, may_use, person, sealed, sealed_entry
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.sealed.test_reveal import ask
from tests.e2e.trust.golden import check_golden, plain, told

pytestmark = pytest.mark.e2e


def attacker(team: Team) -> Person:
    """Who may ask for values too, and may `use` and `reveal` one binding: ``own``."""
    mallory = person(team, "mallory")
    asks = {"apiGroups": ["runkeys.dev"], "resources": ["secretreveals"], "verbs": ["create", "get"]}
    reveals = {
        "apiGroups": ["runkeys.dev"],
        "resources": ["secretbindings"],
        "resourceNames": ["own"],
        "verbs": ["reveal"],
    }
    give(team, "asks-mallory", "mallory", [asks, reveals])
    may_use(team, "mallory", "own")
    wait_until(
        "mallory to be let ask", lambda: may(mallory.client, team.namespace, "create", "secretreveals")
    )
    return mallory


def shared_bindings(team: Team) -> tuple[Object, Object]:
    """An entry that is sealed for ``team-keys``, and one for the whole namespace, as the attacker reads them."""
    strict = sealed_entry(team, team.value, binding="team-keys")
    text = sealed(team, NamespaceEntry(team.namespace, "wide"), team.value)
    wide = {"name": "wide", "sealed": text, "scope": "Namespace"}
    team.make_binding("team-keys", secrets=[strict])
    team.make_binding("team-wide", secrets=[wide])
    return strict, wide


def refused(who: Person, made: Object) -> str:
    with pytest.raises(ApiError) as found:
        who.client.create(made)
    return told(found.value.message, who.team)


def test_copied_text_opens_in_nothing_that_whoever_copied_it_may_write(
    new_team: TeamMaker, tmp_path: Path
) -> None:
    team, rows = new_team(), {}
    strict, wide = shared_bindings(team)
    narrow = {name: part for name, part in wide.items() if name != "scope"}
    mallory = attacker(team)
    mine: Object = {"owner": {"username": "mallory"}, "access": []}

    with pytest.raises(ApiError) as found:
        mallory.client.delete("secretbindings", "team-keys", team.namespace)
    rows["the shared binding is deleted"] = told(found.value.message, team)
    team.client.delete("secretbindings", "team-keys", team.namespace)  # not applied yet, or pruned

    # without a right: a personal binding, of the name that the text was sealed for
    rows["scope: Namespace in a personal binding"] = refused(
        mallory, binding(team.namespace, "team-keys", secrets=[strict, wide], **mine)
    )
    mallory.client.create(binding(team.namespace, "team-keys", secrets=[strict, narrow], **mine))
    for entry in ("token", "wide"):
        status = ask(mallory, entry, personal=True).answer()
        assert (status.get("sealed"), status["reason"]) == (None, "SealContextMismatch")
        rows[f"{entry} of it is revealed"] = plain(status["message"], team)
    mallory.submit("prints-it", bindings=[{"personal": True}])
    stalled = condition(team.wait_condition("prints-it", "Stalled", reason="SealContextMismatch"), "Stalled")
    rows["a run prints it"] = plain(stalled["message"], team)

    # with the right to one shared binding: what was sealed for another, or for all
    rows["scope: Namespace in a binding of one's own"] = refused(
        mallory, binding(team.namespace, "own", secrets=[wide])
    )
    mallory.client.create(binding(team.namespace, "own", secrets=[strict, narrow]))
    for entry in ("token", "wide"):
        assert ask(mallory, entry, binding="own").answer()["reason"] == "SealContextMismatch"
    change = {"spec": {"secrets": [wide]}}
    with pytest.raises(ApiError) as found:
        mallory.client.patch("secretbindings", "own", team.namespace, change)
    assert told(found.value.message, team) == rows["scope: Namespace in a binding of one's own"]
    assert (team.jobs(), team.secret_story()) == ([], [])
    check_golden("copied-values.txt", rows, tmp_path)


def test_control_without_the_policy_the_text_of_the_namespace_opens(new_team: TeamMaker) -> None:
    """What the policy alone holds; and the text does open, where its place is."""
    team = new_team()
    _, wide = shared_bindings(team)
    mallory = attacker(team)
    with team.without_policies("bindings"):
        mallory.client.create(binding(team.namespace, "own", secrets=[wide]))
    question = ask(mallory, "wide", binding="own")
    assert question.open(question.answer()["sealed"]) == team.value


def test_control_whoever_may_use_the_name_makes_the_binding_again_and_is_told(new_team: TeamMaker) -> None:
    team = new_team()
    strict = sealed_entry(team, team.value, binding="own")
    mallory = attacker(team)
    mallory.client.create(binding(team.namespace, "own", secrets=[strict]))
    mallory.client.delete("secretbindings", "own", team.namespace)
    mallory.client.create(binding(team.namespace, "own", secrets=[strict]))
    question = ask(mallory, binding="own")
    assert question.open(question.answer()["sealed"]) == team.value
