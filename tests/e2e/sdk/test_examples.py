"""The shipped examples of a service, of secrets by name and of a flow, on a real cluster."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
import yaml

from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import ApiError, Object
from testing.examples import EXAMPLES
from testing.namespace import TASK_IMAGE, Team, canary, phase, run
from testing.people import may, sealed_entry
from tests.e2e.sdk.conftest import UserMaker, ok
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e


def example(name: str, image: str) -> Object:
    """The workflow of an example, for the image that has its code."""
    found: Object = yaml.safe_load((EXAMPLES / name / "workflow.yaml").read_text())
    for task in found["spec"]["tasks"]:
        for container in task["template"]["spec"]["containers"]:
            container |= {"image": image, "workingDir": f"/app/examples/{name}"}
    return found


def make_account(team: Team, name: str) -> None:
    """The service account of an example, with its rights."""
    for manifest in yaml.safe_load_all((EXAMPLES / name / "account.yaml").read_text()):
        manifest["metadata"]["namespace"] = team.namespace
        for subject in manifest.get("subjects", []):
            subject["namespace"] = team.namespace
        team.client.create(manifest)


def test_rows_16_17_18_a_service_gets_what_the_user_brought_along(
    team: Team, node: Cluster, alice: Terminal, sdk_image: str
) -> None:
    """As the example's README starts it from Python."""
    value, mark = canary(), node.audit.mark()
    manifest = example("qhub", sdk_image)
    (alice.folder / "workflow.json").write_text(json.dumps(manifest))
    code = (
        "import json, sys; from runkeys import Client\n"
        "manifest = json.load(open('workflow.json'))\n"
        "manifest['spec']['input']['$secrets'] = {'weather_key': sys.stdin.read()}\n"
        "run = Client(operator_namespace=%r).run(manifest, timeout=150)\n"
        "assert '$secrets' in manifest['spec']['input'], 'the caller has what it had'\n"
        "print(json.dumps([run.metadata.name, run.status.phase, run.status.tasks[0].output]))"
    )
    name, ended, output = json.loads(ok(alice, code % team.namespace, stdin=value))
    assert ended == "Succeeded"
    endpoint = manifest["spec"]["input"]["data"]["endpoint"]
    signature = hmac.new(value.encode(), endpoint.encode(), hashlib.sha256).hexdigest()
    assert output == {"endpoint": endpoint, "signature": signature}
    assert not team.run(name)["spec"].get("sealedInput"), "what was sealed is purged"
    forms = [value.encode(), *(base64.b64encode(b"." * skip + value.encode())[4:-4] for skip in range(3))]
    keys = node.etcd.find(*forms, since=team.since)
    assert keys, "the search finds nothing, not even the Secret of the run"
    assert [key for key in keys if not key.startswith(f"/registry/secrets/{team.namespace}/rk-")] == []
    assert [str(event) for form in forms for event in node.audit.find(form, mark)] == []
    assert team.live_secrets() == []


def test_row_22_the_orquestra_example_reads_what_the_user_has_set(alice: Terminal, sdk_image: str) -> None:
    value = canary()
    code = "import sys; from runkeys.compat import orquestra as sdk; sdk.secrets.set('ibm_token', sys.stdin.read())"
    ok(alice, code, stdin=value)
    (alice.folder / "workflow.yaml").write_text(yaml.safe_dump(example("orquestra", sdk_image)))
    done = alice.run("run", "-f", "workflow.yaml", "--name", "circuit", "--wait")
    assert done.code == 0, done
    assert alice.ok("logs", "circuit").split() == ["sha256", hashlib.sha256(value.encode()).hexdigest()]


def test_rows_37_44_45_the_prefect_example_reads_json_and_keeps_a_pair(
    team: Team, user: UserMaker, sdk_image: str
) -> None:
    token = canary()
    make_account(team, "prefect")
    entry = sealed_entry(team, json.dumps({"token": token}), binding="team-secrets", entry="MYSECRET")
    team.make_binding("team-secrets", secrets=[entry])
    alice = user("alice", ("team-secrets",))
    (alice.folder / "workflow.yaml").write_text(yaml.safe_dump(example("prefect", sdk_image)))
    done = alice.run("run", "-f", "workflow.yaml", "--name", "flow", "--wait")
    assert done.code == 0, (done, team.printed())
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert alice.ok("logs", "flow").split() == ["sha256", digest]
    stored = team.client.get("configmaps", "runkeys-kv", team.namespace)["data"]
    assert json.loads(stored["last"]) == {"key": "last", "value": {"digest": digest, "same": True}}


def test_a_run_starts_a_run_and_hands_its_secret_on(
    team: Team, node: Cluster, alice: Terminal, sdk_image: str
) -> None:
    value, mark = canary(), node.audit.mark()
    make_account(team, "chain")
    alice.ok("secret", "set", "circuit-token", stdin=value)
    manifest = example("chain", sdk_image)
    (container,) = manifest["spec"]["tasks"][0]["template"]["spec"]["containers"]
    assert [item["name"] for item in container["env"]] == ["IMAGE"]
    container["env"] = [
        {"name": "IMAGE", "value": sdk_image},
        {"name": "RUNKEYS_OPERATOR_NAMESPACE", "value": team.namespace},
    ]
    (alice.folder / "workflow.yaml").write_text(yaml.safe_dump(manifest))
    done = alice.run("run", "-f", "workflow.yaml", "--name", "chain", "--wait")
    assert done.code == 0, (done, team.printed())
    output = team.run("chain")["status"]["tasks"][0]["output"]
    assert output["phase"] == "Succeeded", output
    assert output["output"] == {"digest": hashlib.sha256(value.encode()).hexdigest()}
    started = team.run(output["run"])
    conductor = f"system:serviceaccount:{team.namespace}:conductor"
    assert started["spec"]["requester"]["username"] == conductor
    assert not started["spec"].get("sealedInput"), "what was sealed is purged"
    assert [str(event) for event in node.audit.find(value.encode(), mark)] == []
    assert team.live_secrets() == []


def test_control_its_account_may_do_no_more_than_start_runs(team: Team) -> None:
    """What it may not do is refused by the API server: its own rights are all that the first task has."""
    make_account(team, "chain")
    conductor = team.client.as_user(f"system:serviceaccount:{team.namespace}:conductor")
    wait_until("it to be let in", lambda: may(conductor, team.namespace, "create", "workflowruns"))
    assert not may(conductor, team.namespace, "use", "secretbindings", "keys")
    for verb in ("update", "patch", "delete"):
        assert not may(conductor, team.namespace, verb, "workflowruns")
    who = {
        "username": f"system:serviceaccount:{team.namespace}:conductor",
        "groups": ["system:authenticated"],
    }
    with pytest.raises(ApiError, match="may not use SecretBinding keys"):
        conductor.create(run(team.namespace, "stolen", requester=who))


def has_ended(job: Object) -> bool:
    """Whether a Job has, in whatever way."""
    kinds = {item["type"] for item in job.get("status", {}).get("conditions", ()) if item["status"] == "True"}
    return bool({"Complete", "Failed"} & kinds)


def test_a_cron_job_makes_a_run_each_time(team: Team, sdk_image: str) -> None:
    """Line 4 of what users do. Kubernetes makes the Job that the schedule would make."""
    make_account(team, "cronjob")
    team.make_binding("hello", secrets=[sealed_entry(team, canary(), binding="hello", entry="api-token")])
    config, cron = yaml.safe_load_all((EXAMPLES / "cronjob" / "cronjob.yaml").read_text())
    config["data"]["run.yaml"] = config["data"]["run.yaml"].replace("busybox:1.37", TASK_IMAGE)
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    container |= {
        "image": sdk_image,
        "env": [{"name": "RUNKEYS_OPERATOR_NAMESPACE", "value": team.namespace}],
    }
    for manifest in (config, cron):
        team.client.create(manifest, team.namespace)
    nightly = f"system:serviceaccount:{team.namespace}:nightly"
    for number in (1, 2):
        team.cluster.kubectl("-n", team.namespace, "create", "job", f"now-{number}", "--from=cronjob/nightly")
        team.client.wait_for("jobs", f"now-{number}", team.namespace, has_ended)
        job = team.client.get("jobs", f"now-{number}", team.namespace)
        assert job["status"].get("succeeded") == 1, team.cluster.kubectl(
            "-n", team.namespace, "logs", f"job/now-{number}"
        )
        runs = team.client.list("workflowruns", team.namespace)
        assert [phase(made) for made in runs] == ["Succeeded"] * number, "the Job has waited for its run"
    for made in team.client.list("workflowruns", team.namespace):
        assert made["metadata"]["name"].startswith("nightly-")
        assert made["spec"]["requester"]["username"] == nightly
    assert team.live_secrets() == []
    # The pod of the CronJob itself has no secret.
    (pod,) = team.client.list("pods", team.namespace, labels="batch.kubernetes.io/job-name=now-1")
    assert [item["name"] for item in pod["spec"]["containers"][0]["env"]] == ["RUNKEYS_OPERATOR_NAMESPACE"]
