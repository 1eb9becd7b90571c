"""How an attempt ended, situation by situation: who was at fault, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from runkeys.api import AttemptStatus, Task
from runkeys.planning.observation import ContainerView, JobState, JobView, PodView, Role
from runkeys.planning.outcome import outcome_of
from runkeys.planning.refusal import Reason
from runkeys.planning.retry import next_start, verdict_of
from runkeys.planning.status import Outcome
from tests.unit.planning.objects import START, later, make_run, task
from tests.unit.planning.world import World

D, F = Outcome.DISRUPTED, Outcome.FAILED
JOB = JobView("rk", "j", "run-uid", START, JobState.FAILED, "BackoffLimitExceeded", "Job has reached it")


def ended(name: str = "main", code: int = 1, role: Role = Role.MAIN, **fields: Any) -> ContainerView:
    fields.setdefault("ended_at", later(50))
    return ContainerView(name, "i", started=True, ended=True, exit_code=code, role=role, **fields)


def pod(*containers: ContainerView, **fields: Any) -> PodView:
    return PodView("rk-1", "u", "j", START, "Failed", "default", containers, node="n1", **fields)


UNKNOWN: dict[str, Any] = {"reason": "ContainerStatusUnknown", "output": "not located", "ended_at": None}
RUNTIME = 'exec: "nope": executable file not found in $PATH'


@pytest.mark.parametrize(
    ("found", "outcome", "says"),
    [
        pytest.param(pod(ended()), F, "container main exited with code 1", id="failed"),
        pytest.param(pod(ended(reason="Error")), F, "container main exited with code 1", id="error"),
        pytest.param(
            pod(ended(code=137, reason="OOMKilled", output="a-secret")),
            F,
            "container main exited with code 137 (OOMKilled)",
            id="no memory left",
        ),
        pytest.param(
            pod(ended(code=128, reason="StartError", output=RUNTIME)),
            F,
            f"container main did not start (StartError): {RUNTIME}",
            id="no such program",
        ),
        pytest.param(
            pod(reason="OutOfcpu", message="Pod was rejected: Node didn't have enough"),
            D,
            "node n1 did not take pod rk-1, or gave it up: OutOfcpu: Pod was rejected: Node didn't have enough",
            id="no room",
        ),
        *(
            pytest.param(pod(reason=reason), D, reason, id=reason)
            for reason in (
                "NodeAffinity",
                "UnexpectedAdmissionError",
                "NodePorts",
                "Terminated",
                "Preempting",
            )
        ),
        pytest.param(
            pod(ended(), reason="NodeAffinity"),
            D,
            "NodeAffinity",
            id="a kubelet that started anew gave it up",
        ),
        pytest.param(
            pod(ended(code=137), reason="Evicted", message="Usage of EmptyDir volume exceeds the limit"),
            F,
            "pod rk-1 exceeded its limits: Evicted: Usage of EmptyDir volume exceeds the limit",
            id="its own limit",
        ),
        pytest.param(
            pod(
                ended(code=137),
                reason="Evicted",
                disrupted=True,
                disruption="TerminationByKubelet: low on memory",
            ),
            D,
            "the pod was taken off its node: TerminationByKubelet: low on memory",
            id="the node's memory",
        ),
        pytest.param(pod(ended(code=137, **UNKNOWN)), D, "does not know how", id="lost sight of"),
        pytest.param(
            pod(ended("main", 0, reason="Completed"), ended("side", 137, **UNKNOWN)),
            D,
            "side",
            id="of another",
        ),
        pytest.param(
            pod(ended(code=3), ended("side", 137, **UNKNOWN)),
            F,
            "main exited with code 3",
            id="known besides",
        ),
        pytest.param(
            pod(ended(code=143, reason="Error"), deleted_at=later(40)),
            F,
            "pod rk-1 was deleted while it ran (kubectl delete pod, or another client): container main exited with"
            " code 143",
            id="deleted",
        ),
        pytest.param(
            pod(ended(), deleted_at=later(51)), F, "container main exited with code 1", id="deleted after"
        ),
        pytest.param(
            pod(ended(code=137, **UNKNOWN), deleted_at=later(40)),
            F,
            "was deleted",
            id="deleted before it started",
        ),
        pytest.param(pod(deleted_at=later(40)), F, "was deleted", id="deleted, and nothing of it is known"),
        pytest.param(
            pod(ended(code=42), ended("proxy", 143, Role.SIDECAR)),
            F,
            "container main exited with code 42",
            id="sidecar",
        ),
        pytest.param(
            pod(ended(code=42), ended("d", 1, Role.EPHEMERAL)),
            F,
            "container main exited with code 42",
            id="debugging",
        ),
        pytest.param(
            pod(gone=True),
            F,
            "its pod is gone, and how it ended is not known: Job has reached it",
            id="unseen",
        ),
        pytest.param(pod(ended("own", 5, Role.INIT)), F, "container own exited with code 5", id="init"),
    ],
)
def test_who_was_at_fault(found: PodView, outcome: Outcome, says: str) -> None:
    result = outcome_of(make_run().spec.tasks[0], JOB, [found])
    assert result.outcome is outcome
    assert result.message == says or (len(says) < 40 and says in result.message), result.message
    assert "a-secret" not in result.message


def test_what_a_runtime_says_is_cut() -> None:
    result = outcome_of(
        make_run().spec.tasks[0], JOB, [pod(ended(code=128, reason="StartError", output="x" * 5000))]
    )
    assert len(result.message) < 500


def rules(*wanted: tuple[str, str, list[int], str | None]) -> Task:
    found = [
        {
            "action": action,
            "onExitCodes": {
                "operator": operator,
                "values": values,
                **({"containerName": name} if name else {}),
            },
        }
        for action, operator, values, name in wanted
    ]
    return make_run(tasks=[task(podFailurePolicy={"rules": found})]).spec.tasks[0]


MAIN, SIDE = ended(code=42), ended("side", 7)
PROXY = ended("proxy", 143, Role.SIDECAR)


@pytest.mark.parametrize(
    ("rule", "containers", "reason"),
    [
        pytest.param(
            ("FailJob", "NotIn", [42], None), [MAIN, PROXY], Reason.JOB_FAILED, id="a sidecar's 143"
        ),
        pytest.param(("FailJob", "In", [143], None), [MAIN, PROXY], Reason.JOB_FAILED, id="the same, in"),
        pytest.param(
            ("FailJob", "In", [143], "proxy"), [MAIN, PROXY], Reason.FAILED_FOR_GOOD, id="by its name"
        ),
        pytest.param(
            ("FailJob", "NotIn", [42], None), [MAIN, SIDE], Reason.JOB_FAILED, id="another's beside"
        ),
        pytest.param(
            ("FailJob", "In", [7], "side"), [MAIN, SIDE], Reason.FAILED_FOR_GOOD, id="its name beside"
        ),
        pytest.param(
            ("FailJob", "In", [7], None), [ended(code=0), SIDE], Reason.FAILED_FOR_GOOD, id="another's"
        ),
        pytest.param(("FailJob", "In", [42], None), [MAIN], Reason.FAILED_FOR_GOOD, id="its own"),
        pytest.param(
            ("FailJob", "In", [137], None),
            [ended(code=137, **UNKNOWN)],
            Reason.DISRUPTED,
            id="the kubelet's 137",
        ),
    ],
)
def test_whose_exit_code_a_rule_looks_at(
    rule: tuple[str, str, list[int], str | None], containers: list[ContainerView], reason: Reason
) -> None:
    assert outcome_of(rules(rule), JOB, [pod(*containers)]).reason == reason


# how often


def attempts(*ends: str) -> list[AttemptStatus]:
    """``f``: failed, ``i``: failed and ignored, ``d``: disrupted, ``s``: suspended."""
    kinds = {
        "f": (F, Reason.JOB_FAILED),
        "i": (D, Reason.JOB_FAILED),
        "d": (D, Reason.DISRUPTED),
        "s": (Outcome.SUSPENDED, Reason.SUSPENDED),
    }
    return [
        AttemptStatus(
            number=number, job="j", job_uid="u", end_time=START, outcome=kinds[end][0], reason=kinds[end][1]
        )
        for number, end in enumerate(ends, 1)
    ]


@pytest.mark.parametrize(
    ("ends", "over"),
    [
        ("d" * 10, False),
        ("d" * 11, True),
        ("i" * 10, False),
        ("i" * 11, True),
        (
            "i" * 10 + "d",
            False,
        ),  # a drained node is not the one disruption too many of a task that ignores failures
        ("d" * 10 + "i", False),
        ("id" * 10, False),
        ("id" * 10 + "i", True),
        ("f", True),
        ("s" * 50, False),
    ],
)
def test_disruptions_and_ignored_failures_are_counted_apart(ends: str, over: bool) -> None:
    assert (verdict_of(make_run().spec.tasks[0], attempts(*ends), "") is not None) is over


@pytest.mark.parametrize(
    ("ends", "seconds"),
    [
        ("f", 10),
        ("ff", 20),
        ("d", 0),
        ("dd", 10),
        ("ddd", 20),
        ("d" * 9, 360),
        ("i", 10),
        ("ii", 20),
        ("ffd", 0),
        ("ddi", 10),
        ("dds", 0),
    ],
)
def test_how_long_the_next_attempt_waits(ends: str, seconds: int) -> None:
    assert next_start(attempts(*ends)) == (later(seconds) if seconds else None)


# a Job that is suspended, a pod that is gone


def running() -> World:
    world = World()
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    world.start_pod()
    return world


def test_a_job_that_is_suspended_before_it_began_is_told_and_costs_no_attempt() -> None:
    world = World()
    world.reconcile()
    world.suspend_jobs()
    for _ in range(4):
        world.tick(20)
        world.reconcile()
    (found,) = world.run.status.tasks
    assert (found.state, found.reason, len(found.attempts)) == ("Waiting", Reason.JOB_SUSPENDED, 1)
    assert "queue their pods instead" in found.message
    world.suspend_jobs(on=False)
    for event in (world.bind_pod, world.start_pod, world.end_pod, world.finish_jobs):
        event()
        world.reconcile()
    assert world.run.status.phase == "Succeeded"
    assert len(world.run.status.tasks[0].attempts) == 1


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("secrets", [[], task()["secrets"]], ids=["plain", "secret"])
@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
def test_a_job_that_is_suspended_and_resumed_is_a_disruption(
    started: bool, seen: bool, secrets: list[Any], delivery: str
) -> None:
    world = World(run=make_run(tasks=[task(secrets=secrets, delivery=delivery)]))
    world.reconcile()
    world.bind_pod()
    world.reconcile()
    if started:
        world.start_pod()
    world.tick(3)
    world.reconcile()
    world.suspend_jobs()
    if seen:
        world.reconcile()
    world.suspend_jobs(on=False)
    world.bind_pod()
    world.reconcile()
    (first, *_) = world.run.status.tasks[0].attempts
    assert first.outcome == Outcome.DISRUPTED
    assert first.reason == (Reason.JOB_SUSPENDED if seen else Reason.POD_REPLACED)
    world.bring_to_end()
    assert world.run.status.phase == "Succeeded"
    assert [item.outcome for item in world.run.status.tasks[0].attempts] == ["Disrupted", "Succeeded"]


def test_a_pod_that_is_gone_while_its_job_goes_on_is_a_disruption() -> None:
    world = running()
    world.take_pods_away()
    world.reconcile()
    (first,) = world.run.status.tasks[0].attempts
    assert (first.outcome, first.reason) == (Outcome.DISRUPTED, Reason.POD_GONE)
    assert first.exposures[0].deleted is not None
    assert not world.secrets


def test_a_pod_that_is_gone_and_counted_is_left_to_its_job() -> None:
    world = running()
    world.remove_pod()
    world.reconcile()
    assert [item.outcome for item in world.run.status.tasks[0].attempts] == [""]
    world.finish_jobs()
    world.reconcile()
    assert [item.outcome for item in world.run.status.tasks[0].attempts] == ["Failed"]


def test_a_pod_that_succeeded_before_its_job_was_suspended_has_succeeded() -> None:
    world = running()
    world.end_pod()
    world.suspend_jobs()
    world.reconcile()
    world.finish_jobs()
    world.reconcile()
    assert world.run.status.phase == "Succeeded"


def test_a_refused_pod_is_tried_again_with_a_back_off_and_its_words() -> None:
    world = World()
    world.reconcile()
    for _ in range(2):
        world.bind_pod()
        world.reconcile()
        world.refuse_pod()
        world.reconcile()
        world.finish_jobs()
        world.reconcile()
    (found,) = world.run.status.tasks
    assert found.message.startswith("attempt 2 was disrupted: node node1 did not take pod ")
    assert "OutOfcpu: no room; the next one starts at " in found.message
    assert (found.state, found.reason) == ("Waiting", Reason.BACK_OFF)
    assert all("OutOfcpu" in (item.message or "") for item in found.attempts)
