"""What `/metrics` says of real runs, and what the log says of each decision."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testing.cluster.base import free_port, wait_until
from testing.cluster.client import PATIENCE
from testing.namespace import FINISHES_WHEN_TOLD, Team, phase, python
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.runs.test_many_runs import late_pods

pytestmark = pytest.mark.e2e

LABELS = {"verb", "resource", "code", "kind", "reason", "phase", "release_policy", "version", "le"}


@dataclass
class Watched:
    """A team and the metrics of its operator."""

    team: Team
    port: int

    def text(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def samples(self) -> Iterator[tuple[str, dict[str, str], float]]:
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                yield sample.name, sample.labels, sample.value

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels."""
        return sum(
            value for found, has, value in self.samples() if found == name and labels.items() <= has.items()
        )

    def lines(self, run: str) -> list[dict[str, Any]]:
        """What the log says of a run, above debug."""
        whole, _, _ = self.team.operator.text().rpartition("\n")
        entries = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [
            entry
            for entry in entries
            if entry.get("run") == f"{self.team.namespace}/{run}" and entry["level"] != "debug"
        ]

    def told(self, run: str) -> list[str]:
        """The same, messages only."""
        return [entry["message"] for entry in self.lines(run)]


@pytest.fixture
def watched(new_team: TeamMaker) -> Watched:
    port = free_port()
    team = new_team("--health-port", str(port), "--log-format", "json", "--sweep-seconds", "2")
    team.make_source()
    team.make_binding()
    team.operator.wait_serving()
    wait_until("readiness", lambda: Watched(team, port).value("runkeys_ready") == 1)
    return Watched(team, port)


def test_a_run_is_counted_and_measured(watched: Watched) -> None:
    team = watched.team
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(found)
    assert watched.value("runkeys_live_secrets") == 1
    assert watched.value("runkeys_pod_bound_to_secret_seconds_count") == 1
    assert watched.value("runkeys_secret_exposure_seconds_count") == 0

    team.tell_to_finish(found)
    run = team.wait_condition("job", "SecretsReleased")

    [exposure] = run["status"]["tasks"][0]["attempts"][0]["exposures"]
    wait_until("the last Secret to be counted", lambda: watched.value("runkeys_live_secrets") == 0)
    assert exposure["deleted"]
    assert watched.value("runkeys_secret_exposure_seconds_count", release_policy="OnCompletion") == 1
    assert watched.value("runkeys_pod_end_to_secret_gone_seconds_count") == 1
    # On a busy machine a kubelet may be quicker than the Secret.
    late = watched.value("runkeys_late_secrets_total")
    assert late in (0, 1)
    wait_until("the kubelet to say as much", lambda: len(late_pods(team)) >= late)
    assert watched.value("runkeys_runs_finished_total", phase="Succeeded") == 1
    # Exactly the requests that the API server has in its audit log.
    for verb, resource in (("create", "secrets"), ("delete", "secrets"), ("create", "jobs.batch")):
        counted = watched.value("runkeys_api_requests_total", verb=verb, resource=resource)
        account = f"system:serviceaccount:{team.namespace}:runkeys"
        plural = resource.partition(".")[0]
        asked = list(
            team.cluster.audit.events(verb=verb, resource=plural, namespace=team.namespace, user=account)
        )
        assert counted == len(asked) > 0, (verb, resource)
    assert watched.value("runkeys_reconcile_seconds_count", kind="run") > 0
    assert watched.value("runkeys_reconcile_errors_total", reason="Defect") == 0
    assert watched.value("process_resident_memory_bytes") > 0


def test_failures_are_counted_by_reason_and_a_held_secret_is_overdue(watched: Watched) -> None:
    team = watched.team
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(found)
    name = team.object_name(found)

    def finalizers(names: list[str]) -> None:
        with team.without_policies("names"):  # which would refuse it
            team.client.patch("secrets", name, team.namespace, {"metadata": {"finalizers": names}})

    finalizers(["example.com/hold"])
    with team.without_right("delete", "secrets"):
        team.tell_to_finish(found)
        wait_until(
            "a refusal to be counted",
            lambda: watched.value("runkeys_reconcile_errors_total", kind="run", reason="Forbidden") > 0,
        )
        assert watched.value("runkeys_api_requests_total", verb="delete", resource="secrets", code="403") > 0
        assert watched.value("runkeys_live_secrets") == 1

    wait_until("the Secret to be overdue", lambda: watched.value("runkeys_overdue_secrets") == 1)
    finalizers([])

    team.wait_condition("job", "SecretsReleased")
    wait_until("nothing to be overdue", lambda: watched.value("runkeys_overdue_secrets") == 0)
    wait_until("nothing to be live", lambda: watched.value("runkeys_live_secrets") == 0)


def test_a_secret_that_the_kubelet_missed_is_late(watched: Watched) -> None:
    team = watched.team
    with team.without_right("create", "secrets"):
        found = team.make_run()
        team.wait_pod(found, missed)

    assert phase(team.wait_condition("job", "SecretsReleased")) == "Succeeded"
    assert watched.value("runkeys_late_secrets_total") == 1


def missed(pod: dict[str, Any]) -> bool:
    states = [item["state"] for item in pod["status"].get("containerStatuses", [])]
    return any(state.get("waiting", {}).get("reason") == "CreateContainerConfigError" for state in states)


def test_no_label_and_no_line_holds_a_name_or_a_value(watched: Watched) -> None:
    team = watched.team
    found = team.make_run("a-run-of-that-name")
    team.make_run("refused", bindings=[{"name": "absent"}])
    team.wait_condition("refused", "Stalled")
    team.wait_condition("a-run-of-that-name", "SecretsReleased")
    text = watched.text()

    labels = {name for _, has, _ in watched.samples() for name in has}
    assert {"verb", "resource", "code", "kind"} <= labels <= LABELS
    for word in (team.namespace, "a-run-of-that-name", team.object_name(found), team.value, team.digest):
        assert word not in text
    assert team.value not in team.operator.text()
    # The twin: what is looked for would be found where it is.
    assert team.object_name(found) in team.operator.text()


def test_one_line_for_each_decision(watched: Watched) -> None:
    team = watched.team
    found = team.make_run()
    team.make_run("refused", bindings=[{"name": "absent"}])
    team.wait_condition("job", "SecretsReleased")
    team.wait_condition("refused", "Stalled")
    job = team.object_name(found)
    # The status is seen before its writer has the answer, and says so.
    wait_until("its end to be in the log", lambda: "task Succeeded" in watched.told("job"))
    wait_until("the refusal to be", lambda: any(text.startswith("task ") for text in watched.told("refused")))

    lines = watched.lines("job")
    told = watched.told("job")
    assert [text for text in told if text in ("job created", "secret created", "secret deleted")] == [
        *("job created", "secret created", "secret deleted")
    ]
    assert re.match(r"(task Pending )?(task Waiting )?.*task Running .*task Succeeded", " ".join(told))
    for line in lines:
        if line["message"] in ("job created", "secret created", "secret deleted"):
            assert (line["task"], line["attempt"], line["job"]) == ("work", 1, job), line
    [gone] = [line for line in lines if line["message"] == "secret deleted"]
    assert gone["seconds"] > 0
    reasons = [line.get("reason") for line in watched.lines("refused") if line["message"].startswith("task ")]
    assert reasons == ["BindingNotFound"]
