"""What commands say while a run waits, is suspended or has no logs, and of secrets that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testing.namespace import FINISHES_WHEN_TOLD, HELD_BACK, TASK_IMAGE, Team, python, run
from testing.workflows import task
from tests.e2e.cli.conftest import UserMaker
from tests.e2e.cli.test_preview import write
from tests.e2e.cli.test_rights import administrator
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e


class TestFollowed:
    def test_what_keeps_a_run_waiting_is_said_once_with_what_to_do(self, team: Team, alice: Terminal) -> None:
        nobody = [{"serviceAccountNames": ["another"]}]
        team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": nobody}})
        alice.ok("run", "-f", write(alice, run(team.namespace)))
        team.wait_condition("job", "Stalled")

        done = alice.run("watch", "job", "--timeout", "3")

        assert done.code == 7
        assert done.out.splitlines()[0] == "work: Pending (AccessDenied)"
        [sentence] = [text for text in done.out.splitlines() if "does not admit this run" in text]
        assert sentence.endswith("its owner can admit the run in spec.access")
        assert "see: runkeys status job" in done.err

    def test_a_suspended_run_is_said_to_be_suspended(self, team: Team, alice: Terminal) -> None:
        alice.ok("run", "-f", write(alice, run(team.namespace, command=python(FINISHES_WHEN_TOLD))))
        team.wait_running(team.run())
        alice.ok("suspend", "job")
        suspended = team.wait_phase("job", "Suspended")
        messages = [item["message"] for item in suspended["status"]["conditions"]]

        done = alice.run("watch", "job", "--timeout", "2")
        table = alice.ok("status", "job")

        assert done.out.count("run job is suspended; to continue it: runkeys resume job") == 1
        assert (
            "Released: nothing is in the cluster now; the run is suspended, to continue it: runkeys resume job"
            in (table)
        )
        assert not any("goes on" in text for text in (done.out, done.err, table, *messages))


class TestLogs:
    def test_of_a_pod_that_never_started(self, team: Team, alice: Terminal) -> None:
        alice.ok("run", "-f", write(alice, run(team.namespace, pod=HELD_BACK)))
        team.wait_run("job", lambda found: found.get("status", {}).get("tasks"))

        waiting = alice.run("logs", "job")
        alice.ok("cancel", "job")
        team.wait_phase("job", "Cancelled")
        over = alice.run("logs", "-f", "job")

        for done in (waiting, over):
            assert (done.code, done.out) == (3, "")
            assert "no pod of run job has started, so there are no logs: work: " in done.err
            assert "masked" not in done.err

    def test_of_a_task_that_has_not_begun_and_of_an_image_that_is_not_there(
        self, team: Team, alice: Terminal
    ) -> None:
        first = task("first", "print('one')", secret=False)
        second = task("second", secret=False, dependsOn=["first"])
        second["template"]["spec"]["containers"][0]["image"] = "localhost/absent:1"
        body = run(team.namespace)
        body["spec"] |= {"bindings": [], "tasks": [first, second]}
        alice.ok("run", "-f", write(alice, body))
        job = {"labels": "runkeys.dev/task=second"}

        def pulls() -> bool:
            return any(
                "Image" in item["state"].get("waiting", {}).get("reason", "")
                for pod in team.client.list("pods", team.namespace, **job)
                for item in pod["status"].get("containerStatuses") or []
            )

        team.wait_run("job", lambda _: pulls(), says="a pod that waits for its image")

        done = alice.run("logs", "job", "-t", "second")

        assert (done.code, done.out) == (3, "")
        assert "no pod of task second of run job has started" in done.err
        assert "Image" in done.err
        assert alice.ok("logs", "job") == "[first] one\n"


class TestSecrets:
    def test_one_that_is_not_there_is_named_as_it_was_asked_for(self, team: Team, user: UserMaker) -> None:
        alice = user(use=("keys", "absent"))
        none = alice.run("secret", "get", "nope")
        alice.ok("secret", "set", "mine", stdin="x")
        others = alice.run("secret", "get", "nope")
        shared = alice.run("secret", "get", "nope", "--binding", "keys")
        absent = alice.run("secret", "get", "nope", "--binding", "absent")

        place = f"your personal binding in namespace {team.namespace}"
        assert (none.code, none.err) == (3, f"Error: there is no secret 'nope' in {place}; it has: none\n")
        assert (others.code, others.err) == (
            3,
            f"Error: there is no secret 'nope' in {place}; it has: mine\n",
        )
        assert (shared.code, "SecretBinding keys in namespace" in shared.err) == (3, True)
        assert (absent.code, absent.err) == (
            3,
            f"Error: there is no SecretBinding absent in namespace {team.namespace}\n",
        )

    def test_all_shared_ones_are_listed(self, team: Team, user: UserMaker) -> None:
        team.make_binding("others")
        alice = user()
        alice.ok("secret", "set", "mine", stdin="x")

        rows = [line.split() for line in alice.ok("secret", "list", "--shared").splitlines()]
        items = json.loads(alice.ok("secret", "list", "--shared", "-o", "json"))["items"]

        assert rows[0] == ["BINDING", "NAME", "FROM", "READY", "YOU", "MAY", "USE", "IT"]
        assert [(row[0], row[1], row[-1]) for row in rows[1:]] == [
            ("keys", "token", "yes"),
            ("others", "token", "no"),
        ]
        assert items[0] == {"binding": "keys", "name": "token", "use": True}
        assert alice.ok("secret", "list", "--shared", "-o", "name") == "keys/token\nothers/token\n"
        assert alice.run("secret", "list", "--shared", "--binding", "keys").code == 2


class TestStatus:
    def test_of_all_namespaces(self, team: Team, alice: Terminal, tmp_path: Path) -> None:
        alice.ok("run", "--image", TASK_IMAGE, "--name", "a", "--wait", "--", "true")
        admin = administrator(team, tmp_path)

        header, *rows = admin.ok("status", "-A").splitlines()

        assert header.split()[:3] == ["NAMESPACE", "NAME", "PHASE"]
        assert [team.namespace, "a", "Succeeded"] in [row.split()[:3] for row in rows]
        denied = alice.run("status", "-A")
        assert (denied.code, "may not list workflowruns.runkeys.dev in the cluster" in denied.err) == (
            4,
            True,
        )
        assert admin.run("status", "-A", "a").code == 2

    def test_time_is_that_of_all_attempts(self, team: Team, alice: Terminal) -> None:
        body = run(team.namespace, command=python("import time; time.sleep(1.2); raise SystemExit(3)"))
        body["spec"]["tasks"][0] |= {"backoffLimit": 1}
        assert alice.run("run", "-f", write(alice, body), "--wait").code == 1
        attempts = team.run()["status"]["tasks"][0]["attempts"]
        assert len(attempts) == 2

        row = alice.ok("status", "job").splitlines()[1]

        assert float(row.split()[-1].removesuffix("s")) >= 2.4, row
