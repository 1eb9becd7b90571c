"""Runs of several tasks: order, data handed on, retries, files, early release, suspend and cancel."""

from __future__ import annotations

import base64
import errno
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testing import examples
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import HELD_BACK, Team, condition, exposures, phase
from testing.workflows import (
    attempts,
    container,
    make,
    object_name,
    outcomes,
    output,
    pod_of,
    states,
    task,
    wait_pod,
)
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e

HAS_NO_SECRET = """
assert not [name for name in os.environ if name.startswith("SECRET_")], "a secret that was not asked for"
assert not (runtime / "secrets").exists()
"""
WAITS = """
import time
while not os.path.exists("/tmp/finish"): time.sleep(0.05)
"""
PRINTS_HASH = 'print("sha256", sha(os.environ["SECRET_API_TOKEN"]), flush=True)\n'


def ended(team: Team, name: str = "flow") -> Object:
    return team.wait_phase(name, "Succeeded", "Failed", "Cancelled")


def succeeded(team: Team, name: str = "flow") -> Object:
    """Wait for the run to have succeeded; nothing of its secrets is left."""
    found = ended(team, name)
    assert phase(found) == "Succeeded", found["status"]
    check_nothing_is_left(team, found)
    return found


def check_nothing_is_left(team: Team, found: Object) -> None:
    assert condition(found, "SecretsReleased")["status"] == "True", found["status"]
    assert found["status"]["live"] == 0
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    assert all(item["created"] <= item["deleted"] for item in exposures(found))


def finish(team: Team, found: Object, name: str, attempt: int = 1) -> None:
    """End a task that runs ``WAITS``."""
    team.tell_pod_to_finish(pod_of(team, found, name, attempt)["metadata"]["name"])


# three tasks that hand data on


def three(**middle: Any) -> list[dict[str, Any]]:
    begin = HAS_NO_SECRET + 'circuit = given("circuit"); write({"depth": circuit["qubits"] * 2})'
    use = (
        'plan = given("plan"); assert plan == {"depth": 10}, plan\n'
        + PRINTS_HASH
        + 'write({"result": plan["depth"] + 1})'
    )
    end = HAS_NO_SECRET + 'assert given("result") == {"result": 11}; assert given("circuit") == {"qubits": 5}'
    return [
        task("transpile", begin, recordOutput=True, input=[{"name": "circuit", "from": "input.circuit"}]),
        task(
            "run-circuit",
            use,
            secret=True,
            dependsOn=["transpile"],
            recordOutput=True,
            input=[{"name": "plan", "from": "tasks.transpile.output"}],
            others=(container(HAS_NO_SECRET, name="other"),),
            **middle,
        ),
        task(
            "report",
            end,
            dependsOn=["run-circuit"],
            input=[
                {"name": "result", "from": "tasks.run-circuit.output"},
                {"name": "circuit", "from": "input.circuit"},
            ],
        ),
    ]


def test_three_tasks_hand_data_on_and_only_one_has_the_secret(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    run = make(team, *three(), input={"circuit": {"qubits": 5}})
    found = succeeded(team)
    assert states(found) == dict.fromkeys(("transpile", "run-circuit", "report"), "Succeeded")
    assert [item.get("output") for item in found["status"]["tasks"]] == [{"depth": 10}, {"result": 11}, None]
    assert output(team, run, "run-circuit") == f"sha256 {team.digest}\n"
    # each Job only after the one before it had ended; one Secret, and only for the middle one
    names = [object_name(run, name) for name in states(found)]
    made = [call.name for call in team.calls(mark, "create jobs")]
    assert made == names
    assert team.secret_story() == ["made", "gone"] == team.secret_story(names[1])
    assert found["status"]["tasksDone"] == "3/3"
    # the value is nowhere but in its source and in the one Secret
    where = node.etcd.find(team.value.encode(), since=team.since)
    assert {key.rpartition("/")[2] for key in where} == {"source", names[1]}


def test_the_shipped_example(new_team: TeamMaker, node: Cluster) -> None:
    team = new_team(sources=("quantum",))
    for manifest in examples.workflow(team.namespace, team.value):
        team.client.create(manifest)
    found = succeeded(team, "vqe")
    assert states(found) == dict.fromkeys(("transpile", "run-circuit", "report", "revoke"), "Succeeded")
    assert output(team, found, "report") == '{"energy":-1.1,"depth":10}'
    table = node.kubectl("-n", team.namespace, "get", "wfr").splitlines()
    assert [table[0].split(), table[1].split()[:4]] == [
        ["NAME", "PHASE", "TASKS", "LIVE", "EXPOSED", "AGE"],
        ["vqe", "Succeeded", "4/4", "0"],
    ]
    waited = node.kubectl(
        "-n", team.namespace, "wait", "--for=condition=Complete", "wfr/vqe", "--timeout=180s"
    )
    assert "condition met" in waited


def test_control_a_container_that_is_named_has_the_secret(team: Team) -> None:
    """The check that the other container has nothing fails where it is given the secret."""
    make(team, *three(containers=["main", "other"]), input={"circuit": {"qubits": 5}})
    found = ended(team)
    assert states(found) == {"transpile": "Succeeded", "run-circuit": "Failed", "report": "Skipped"}
    assert "container other exited with code 1" in condition(found, "Failed")["message"]
    check_nothing_is_left(team, found)


def test_independent_tasks_run_side_by_side(team: Team) -> None:
    run = make(team, task("a", WAITS), task("b", WAITS, secret=True), task("c", dependsOn=["a", "b"]))
    for name in "ab":
        wait_pod(team, run, name)
    assert states(team.wait_condition("flow", "Complete", "False"))["c"] == "Pending"
    for name in "ab":
        finish(team, run, name)
    succeeded(team)


def test_after_a_failure_nothing_new_starts(team: Team) -> None:
    run = make(
        team,
        task("bad", "sys.exit(3)", secret=True),
        task("long", WAITS, secret=True),
        task("after-bad", dependsOn=["bad"]),
        task("after-long", dependsOn=["long"]),
    )
    wait_pod(team, run, "long")
    wanted = {"bad": "Failed", "long": "Running", "after-bad": "Skipped", "after-long": "Skipped"}
    team.wait_run("flow", lambda item: states(item) == wanted, says=str(wanted))
    finish(team, run, "long")
    found = ended(team)
    assert (phase(found), states(found)["long"]) == ("Failed", "Succeeded")
    assert condition(found, "Failed")["message"] == "task bad: container main exited with code 3"
    assert len(team.jobs()) == 2
    check_nothing_is_left(team, found)


# attempts

FAILS_ONCE = """
attempt = os.environ["HOSTNAME"].split("-")[3]
print("attempt", attempt, "sha256", sha(os.environ["SECRET_API_TOKEN"]), flush=True)
if attempt == "1": sys.exit(1)
"""


@pytest.mark.parametrize("policy", ["OnCompletion", "OnStart"])
def test_the_second_attempt_has_a_secret_of_its_own(team: Team, policy: str) -> None:
    run = make(team, task("a", FAILS_ONCE, secret=True, backoffLimit=1, releasePolicy=policy))
    found = succeeded(team)
    assert outcomes(found, "a") == ["Failed", "Succeeded"]
    assert attempts(found, "a")[0]["reason"] == "JobFailed"
    for number in (1, 2):
        assert output(team, run, "a", number) == f"attempt {number} sha256 {team.digest}\n"
        assert team.secret_story(object_name(run, "a", number)) == ["made", "gone"]
    assert len(exposures(found)) == 2


def test_control_without_a_second_attempt_it_fails(team: Team) -> None:
    make(team, task("a", FAILS_ONCE, secret=True))
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Failed", ["Failed"])


def test_an_exit_code_that_is_worth_no_other_attempt(team: Team) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    fields: dict[str, Any] = {"backoffLimit": 3, "podFailurePolicy": {"rules": [rule]}}
    make(team, task("a", "sys.exit(42)", secret=True, **fields))
    found = ended(team)
    assert (phase(found), outcomes(found, "a")) == ("Failed", ["Failed"])
    assert condition(found, "Failed")["reason"] == "FailedForGood"
    assert "exited with code 42" in condition(found, "Failed")["message"]
    check_nothing_is_left(team, found)


# files

PEM = "-----BEGIN KEY-----\nline two\n-----END KEY-----\n"
BINARY = bytes(range(256))


def test_files_of_several_lines_and_of_any_bytes(team: Team) -> None:
    team.client.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "files", "namespace": team.namespace},
            "data": {
                "pem": base64.b64encode(PEM.encode()).decode(),
                "binary": base64.b64encode(BINARY).decode(),
            },
        }
    )
    role = team.client.list("roles", team.namespace)
    sources = next(item for item in role if any(rule.get("resourceNames") for rule in item["rules"]))
    rules = [{**rule, "resourceNames": ["source", "files"]} for rule in sources["rules"]]
    team.client.patch("roles", sources["metadata"]["name"], team.namespace, {"rules": rules})
    secrets = [{"name": name, "secretKeyRef": {"name": "files", "key": name}} for name in ("pem", "binary")]
    team.make_binding("files", secrets=secrets)
    code = """
for name in ("key.pem", "blob.bin"): print(name, sha((runtime / "secrets" / name).read_bytes()))
kind = next(line.split()[2] for line in open("/proc/mounts") if line.split()[1] == "/var/runtime/secrets")
print("on", kind)
try: (runtime / "secrets" / "key.pem").write_text("x")
except OSError: print("read-only")
print("variables", [name for name in os.environ if name.startswith("SECRET_")])
"""
    asked = [
        {"name": "key", "secret": "pem", "file": "key.pem"},
        {"name": "blob", "secret": "binary", "file": "blob.bin"},
    ]
    run = make(
        team,
        task("a", code, secrets=asked, others=(container(HAS_NO_SECRET, name="other"),)),
        bindings=[{"name": "files"}],
    )
    succeeded(team)
    assert output(team, run, "a").splitlines() == [
        f"key.pem {hashlib.sha256(PEM.encode()).hexdigest()}",
        f"blob.bin {hashlib.sha256(BINARY).hexdigest()}",
        "on tmpfs",
        "read-only",
        "variables []",
    ]
    assert team.secret_story() == ["made", "gone"]


def test_control_bytes_that_are_no_text_cannot_be_a_variable(team: Team) -> None:
    data = {"token": base64.b64encode(BINARY).decode()}
    team.client.patch("secrets", "source", team.namespace, {"data": data})
    make(team, task("a", secret=True))
    found = team.wait_condition("flow", "Stalled", reason="ValueNotText")
    assert "deliver it as a file (file)" in condition(found, "Stalled")["message"]


# release at the start


@pytest.mark.parametrize("as_file", [False, True], ids=["variable", "file"])
def test_on_start_the_secret_is_gone_while_the_pod_still_runs(
    team: Team, node: Cluster, as_file: bool
) -> None:
    """By the order of events: the task ends only once it is told to, and it is told after the Secret has gone."""
    asked = {"name": "api_token", "secret": "token", **({"file": "token"} if as_file else {})}
    reads = (
        'value = (runtime / "secrets" / "token").read_text()'
        if as_file
        else 'value = os.environ["SECRET_API_TOKEN"]'
    )
    code = f'{WAITS}\n{reads}\nprint("sha256", sha(value))'
    mark = node.audit.mark()
    run = make(team, task("a", code, secrets=[asked], releasePolicy="OnStart"))
    name = object_name(run, "a")
    team.client.wait_for("jobs", name, team.namespace, bool, what="to be made")
    wait_until("the Secret to be gone", lambda: team.secret_story(name) == ["made", "gone"], every=0.05)
    pod = pod_of(team, run, "a")
    pod = team.client.get("pods", pod["metadata"]["name"], team.namespace)
    assert pod["status"]["phase"] == "Running"
    assert node.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
    found = team.wait_run("flow", lambda item: item["status"].get("exposed"), says="an exposure that is over")
    assert (phase(found), found["status"]["live"]) == ("Running", 0)
    finish(team, run, "a")
    succeeded(team)
    assert output(team, run, "a") == f"sha256 {team.digest}\n", (
        "what it was given stays, although the Secret is gone"
    )
    assert len(team.calls(mark, "create secrets")) == 1


def test_control_on_completion_the_secret_is_there_while_the_pod_runs(team: Team) -> None:
    run = make(team, task("a", WAITS, secret=True))
    wait_pod(team, run, "a")
    team.wait_phase("flow", "Running")
    assert team.secret_story() == ["made"]
    finish(team, run, "a")
    succeeded(team)


# suspend, cancel, deadline, and what always runs


def test_suspended_while_it_runs_and_resumed(team: Team) -> None:
    run = make(team, task("a", WAITS + PRINTS_HASH, secret=True), task("b", dependsOn=["a"]))
    wait_pod(team, run, "a")
    team.client.patch("workflowruns", "flow", team.namespace, {"spec": {"suspend": True}})
    found = team.wait_phase("flow", "Suspended")
    assert outcomes(found, "a") == ["Suspended"]
    check_nothing_is_left_yet(team, found)
    team.client.wait_gone("jobs", object_name(run, "a"), team.namespace)
    team.client.patch("workflowruns", "flow", team.namespace, {"spec": {"suspend": False}})
    wait_pod(team, run, "a", attempt=2)
    finish(team, run, "a", 2)
    found = succeeded(team)
    assert outcomes(found, "a") == ["Suspended", "Succeeded"]
    assert output(team, run, "a", 2) == f"sha256 {team.digest}\n"


def check_nothing_is_left_yet(team: Team, found: Object) -> None:
    assert found["status"]["live"] == 0
    assert condition(found, "SecretsReleased")["reason"] == "NotFinished"
    assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []


def test_suspended_before_it_starts_and_while_it_waits_for_a_node(team: Team) -> None:
    run = make(team, task("a", PRINTS_HASH, secret=True, pod=HELD_BACK), suspend=True)
    team.wait_phase("flow", "Suspended")
    assert team.jobs() == []
    team.client.patch("workflowruns", "flow", team.namespace, {"spec": {"suspend": False}})
    pod_of(team, run, "a")
    team.client.patch("workflowruns", "flow", team.namespace, {"spec": {"suspend": True}})
    found = team.wait_phase("flow", "Suspended")
    assert outcomes(found, "a") in ([], ["Suspended"])
    assert team.secret_story() == []


def test_cancel_lets_what_always_runs_do_so_with_its_own_secret(team: Team) -> None:
    run = make(
        team,
        task("a", WAITS, secret=True),
        task("b", dependsOn=["a"]),
        task("revoke", PRINTS_HASH, secret=True, runs="Always"),
    )
    wait_pod(team, run, "a")
    team.client.patch("workflowruns", "flow", team.namespace, {"spec": {"cancel": True}})
    found = ended(team)
    assert phase(found) == "Cancelled"
    assert states(found) == {"a": "Cancelled", "b": "Cancelled", "revoke": "Succeeded"}
    assert output(team, run, "revoke") == f"sha256 {team.digest}\n"
    check_nothing_is_left(team, found)


def test_the_deadline_of_a_run(team: Team) -> None:
    run = make(team, task("a", WAITS, secret=True), task("b", dependsOn=["a"]), activeDeadlineSeconds=3600)
    wait_pod(team, run, "a")
    # It began two hours ago: a deadline of seconds would be over before a slow start.
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    with team.without_policies("status"):  # which would refuse it
        team.client.patch(
            "workflowruns", "flow", team.namespace, {"status": {"startTime": long_ago}}, subresource="status"
        )
    team.operator.kill()
    team.operator.start()
    found = ended(team)
    assert (phase(found), condition(found, "Failed")["reason"]) == ("Failed", "RunDeadlineExceeded")
    assert states(found) == {"a": "Failed", "b": "Skipped"}
    check_nothing_is_left(team, found)


# output that cannot be kept


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ('write("x" * 4093)', ""),
        ('write("x" * 4094)', "OutputTooLarge"),
        ('write("x" * 100_000)', "OutputTooLarge"),
        ('(runtime / "output" / "output.json").write_bytes(bytes(range(256)))', "OutputInvalid"),
        ('(runtime / "output" / "output.json").write_text("{")', "OutputInvalid"),
    ],
    ids=["4095-bytes", "4096-bytes", "100-kB", "binary", "no-json"],
)
def test_output_at_its_limits(team: Team, code: str, reason: str) -> None:
    make(team, task("a", code, recordOutput=True), task("b", dependsOn=["a"]))
    found = ended(team)
    assert (phase(found), found["status"]["tasks"][0].get("reason", "")) == (
        "Failed" if reason else "Succeeded",
        reason,
    )
    assert states(found)["b"] == ("Skipped" if reason else "Succeeded")


@pytest.mark.parametrize(("size", "reason"), [(3071, ""), (3072, "OutputTooLarge")])
def test_output_of_a_pod_with_several_containers(team: Team, size: int, reason: str) -> None:
    """The kubelet shares 12 KiB among them: what it has cut is never taken for the whole."""
    others = tuple(container("", name=f"other-{number}") for number in range(3))
    make(team, task("a", f'write("x" * {size - 2})', recordOutput=True, others=others))
    found = ended(team)
    (result,) = found["status"]["tasks"]
    assert (phase(found), result.get("reason", "")) == ("Failed" if reason else "Succeeded", reason)
    assert result.get("output") == (None if reason else "x" * (size - 2))


def test_output_that_is_renamed_into_place_fails_in_the_task(team: Team) -> None:
    """The file is a mount of its own: the system itself refuses, so that nothing is lost in silence."""
    code = """
(runtime / "output" / "new.json").write_text("1")
try: os.rename(runtime / "output" / "new.json", runtime / "output" / "output.json")
except OSError as error: sys.exit(error.errno)
"""
    make(team, task("a", code, recordOutput=True))
    found = ended(team)
    assert phase(found) == "Failed"
    assert f"exited with code {errno.EBUSY}" in condition(found, "Failed")["message"]


# data pools


def test_a_data_pool_is_mounted_where_the_service_looks(team: Team, node: Cluster) -> None:
    folder = node.scratch / team.namespace
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": team.namespace},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteMany"],
            "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
            "claimRef": {"namespace": team.namespace, "name": "models"},
            "storageClassName": "",
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "namespace": team.namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "1Mi"}},
            "storageClassName": "",
        },
    }
    pool = {"name": "models", "persistentVolumeClaim": "models"}
    try:
        node.client.create(volume)
        team.client.create(claim)
        make(
            team,
            task("a", '(runtime / "datapool" / "models" / "m.txt").write_text("weights")', dataPools=[pool]),
            task(
                "b",
                'place = runtime / "datapool" / "models" / "m.txt"; assert place.read_text() == "weights"\n'
                'try: place.write_text("x"); sys.exit("not read-only")\nexcept OSError: pass',
                dataPools=[{**pool, "readOnly": True}],
                dependsOn=["a"],
            ),
        )
        succeeded(team)
    finally:
        node.client.delete("persistentvolumes", team.namespace, missing_ok=True)
