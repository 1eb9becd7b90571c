"""Without the policies as they are shipped nothing is made; what is wrong is told, and mended it goes on."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runkeys.names import PUBLIC_KEYS
from runkeys.policies import Account
from runkeys_operator.checks.admission import Record
from runkeys_operator.checks.policies import KEPT
from testing.cluster.base import Cluster, free_port, wait_until
from testing.cluster.client import PATIENCE, Object
from testing.cluster.faults import Action, Answer, Request, Reset, matching
from testing.cluster.proxy import ApiProxy
from testing.namespace import HELD_BACK, Team, condition, phase
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

POLICIES, BINDINGS = "validatingadmissionpolicies", "validatingadmissionpolicybindings"


@dataclass(frozen=True)
class Damage:
    """What an administrator might do to one of the policies.

    :ivar change: of the object; None: it is deleted.
    """

    plural: str
    name: str
    change: Callable[[Object], object] | None
    says: str


def _never(spec: Object) -> object:
    return spec.update(matchConditions=[{"name": "never", "expression": "false"}])


def _without_a_check(spec: Object) -> object:
    return spec["validations"].pop()


def _lenient(spec: Object) -> object:
    return spec.update(failurePolicy="Ignore")


def _for_labelled_objects(spec: Object) -> object:
    return spec["matchResources"].update(objectSelector={"matchLabels": {"checked": "yes"}})


def _for_another_namespace(spec: Object) -> object:
    values = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["another"]}
    return spec["matchResources"].update(namespaceSelector={"matchExpressions": [values]})


def _warns_only(spec: Object) -> object:
    return spec.update(validationActions=["Warn"])


DAMAGES = {
    "deleted": Damage(POLICIES, "pods", None, "is missing"),
    "binding deleted": Damage(BINDINGS, "use", None, "is missing"),
    "never matches": Damage(POLICIES, "use", _never, "(spec.matchConditions differs)"),
    "a check less": Damage(POLICIES, "names", _without_a_check, "(spec.validations differs)"),
    "lets errors through": Damage(POLICIES, "status", _lenient, "(spec.failurePolicy differs)"),
    "for some objects": Damage(
        BINDINGS, "pods", _for_labelled_objects, "(spec.matchResources.objectSelector.matchLabels"
    ),
    "for another namespace": Damage(
        BINDINGS, "frozen", _for_another_namespace, "does not cover NAMESPACE, which the operator"
    ),
    "only warns": Damage(BINDINGS, "bindings", _warns_only, "(spec.validationActions[0] differs)"),
    "no stamp": Damage("mutatingadmissionpolicies", "requester", None, "is missing"),
}


def readiness(port: int) -> str:
    """What the probe answers; empty if nobody does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except OSError:
        return ""


def restore(team: Team, plural: str, before: Object) -> None:
    metadata: dict[str, Any] = {key: before["metadata"][key] for key in ("name", "labels")}
    team.client.delete(plural, metadata["name"], missing_ok=True)
    team.client.create({**before, "metadata": metadata})


def test_each_damage_is_told_and_its_repair_is_noticed(new_team: TeamMaker) -> None:
    port = free_port()
    team = new_team("--sweep-seconds", "1", "--health-port", str(port))
    account = Account.service_account(team.namespace, "runkeys")
    wait_until("the operator to be ready", lambda: readiness(port) in ("ready\n", "leader\n"))
    for what, damage in DAMAGES.items():
        name = account.name_of(damage.name)
        before = team.client.get(damage.plural, name)
        if damage.change is None:
            team.client.delete(damage.plural, name)
        else:
            after = team.client.get(damage.plural, name)
            damage.change(after["spec"])
            metadata = {key: before["metadata"][key] for key in ("name", "labels")}
            team.client.delete(damage.plural, name)
            team.client.create({**after, "metadata": metadata})
        says = damage.says.replace("NAMESPACE", team.namespace)
        told = f"{before['kind']} {name}: "
        wait_until(
            f"{what}: {says!r} to be told",
            lambda told=told, says=says: told in readiness(port) and says in readiness(port),  # type: ignore[misc]
        )
        assert f"{told}" in team.operator.text(), "it is in the log, too"
        restore(team, damage.plural, before)
        wait_until("the operator to be ready again", lambda: readiness(port) in ("ready\n", "leader\n"))
    assert team.operator.text().count("the admission policies are in force") == len(DAMAGES) + 1


def test_nothing_is_made_until_they_are_back_and_then_at_once(new_team: TeamMaker, node: Cluster) -> None:
    """When the policy goes, the pod of one run waits for its Secret, and another run for its Job.

    Both go on before a run that is made when they are back: an upgrade, which replaces policies, is no pause. What was
    made while they were away can be anybody's.
    """
    mark = node.audit.mark()
    port = free_port()
    team = new_team("--sweep-seconds", "1", "--health-port", str(port))
    team.make_source()
    team.make_binding()
    held = team.make_run("held", pod=HELD_BACK)
    team.pod(held)
    team.make_run("later", suspend=True)
    team.wait_phase("later", "Suspended")
    with team.without_policies("pods"):
        wait_until("the operator to notice", lambda: "is missing, so nothing limits" in team.operator.text())
        team.let_go(held)
        team.client.patch("workflowruns", "later", team.namespace, {"spec": {"suspend": False}})
        team.make_run("new")
        for name in ("held", "later", "new"):
            found = team.wait_condition(name, "Stalled", reason="PoliciesMissing")
            message = condition(found, "Stalled")["message"]
            assert message.startswith(
                f"ValidatingAdmissionPolicyBinding runkeys-pods.{team.namespace}.runkeys: is missing"
            )
            assert "helm upgrade, or kubectl apply -f policies/" in message
        wait_until("its probe to say so", lambda: "is missing" in readiness(port))
        assert team.secret_story() == []
        assert team.jobs() == [team.object_name(held)]
        events = team.client.list("events", team.namespace, fields="reason=PoliciesMissing")
        assert {event["involvedObject"]["name"] for event in events} == {"held", "later", "new"}
    # The probe changes after the waiting runs are queued.
    wait_until("it to be ready again", lambda: readiness(port) in ("ready\n", "leader\n"))
    team.make_run("witness")
    ended = {
        name: team.wait_phase(name, "Succeeded", "Failed") for name in ("held", "later", "new", "witness")
    }
    phases = {name: phase(found) for name, found in ended.items()}
    assert phases == {"held": "Succeeded", "later": "Succeeded", "new": "Failed", "witness": "Succeeded"}
    assert condition(ended["new"], "Stalled")["reason"] == "RequesterUnknown"
    assert sorted(team.secret_story()) == ["gone"] * 3 + ["made"] * 3
    made = [f"{call.resource} {call.name}" for call in team.calls(mark, "create jobs", "create secrets")]
    names = {name: team.object_name(found) for name, found in ended.items()}
    assert made.index(f"jobs {names['later']}") < made.index(f"jobs {names['witness']}")
    assert made.index(f"secrets {names['held']}") < made.index(f"secrets {names['witness']}")


def test_what_is_there_goes_although_they_are_missing(new_team: TeamMaker) -> None:
    """To take away needs no policy."""
    team = new_team("--sweep-seconds", "1")
    team.make_source()
    team.make_binding()
    found = team.make_run(command=["python3", "-c", "import time; time.sleep(600)"])
    team.wait_running(found)
    with team.without_policies("use"):
        wait_until("the operator to notice", lambda: "is missing, so nothing limits" in team.operator.text())
        team.client.patch("workflowruns", "job", team.namespace, {"spec": {"cancel": True}})
        team.wait_phase("job", "Cancelled")
        assert team.secret_story() == ["made", "gone"]


def test_a_look_at_the_policies_bears_answers_that_are_lost(new_team: TeamMaker, proxy: ApiProxy) -> None:
    """There are many of them: if each lost answer made a look void, a bad line would stop all runs."""
    team = new_team("--sweep-seconds", "3600", server=proxy.url, start=False)
    account = Account.service_account(team.namespace, "runkeys")
    faults: dict[str, Action] = {
        "use": Answer(503),
        "pods": Answer(429, "TooManyRequests", retry_after=1),
        "names": Reset(),
    }
    rules = [
        proxy.rule(matching("get", POLICIES, name=account.name_of(name)), fault, times=2)
        for name, fault in faults.items()
    ]
    team.operator.start()
    team.make_source()
    team.make_binding()
    team.make_run()
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
    assert [len(rule.hits) for rule in rules] == [2, 2, 2]
    assert "failed, retrying" not in team.operator.text()
    assert "the resync failed" not in team.operator.text()


def test_a_record_that_another_writer_kept_from_being_written_is_written_again(
    new_team: TeamMaker, proxy: ApiProxy
) -> None:
    """Else a run that was created just before the policies went is in doubt, although they had checked it."""
    team = new_team("--sweep-seconds", "3600", server=proxy.url)  # no other look at the policies comes
    team.make_source()
    team.make_binding()
    writes = matching("patch", "configmaps", team.namespace, PUBLIC_KEYS)
    proxy.wait_for(lambda request: writes(request) and request.status == 200)
    created: list[datetime] = []

    def covers_it(request: Request) -> bool:
        return writes(request) and bool(created) and seen_in(request) >= created[0] + timedelta(seconds=1)

    conflict = proxy.rule(covers_it, Answer(409, "Conflict"), times=1)
    run = team.make_run(pod=HELD_BACK)
    created.append(datetime.fromisoformat(run["metadata"]["creationTimestamp"]))
    proxy.wait_for(lambda request: request in conflict.hits)
    refused = conflict.hits[0].number
    proxy.wait_for(lambda request: writes(request) and request.status == 200 and request.number > refused)
    found = team.client.get("configmaps", PUBLIC_KEYS, team.namespace)["metadata"]["annotations"][KEPT]
    record = Record.parse(found)
    assert record is not None
    assert record.seen >= created[0] + timedelta(seconds=1)


def seen_in(request: Request) -> datetime:
    record = Record.parse(json.loads(request.body)["metadata"].get("annotations", {}).get(KEPT, ""))
    return record.seen if record is not None else datetime.min.replace(tzinfo=UTC)
