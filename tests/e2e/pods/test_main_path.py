"""Pods of any engine ask for secrets by a label, and get them as plain variables; the values are never in etcd."""

from __future__ import annotations

from typing import Any

import pytest

from testing.cluster.audit import in_order
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import CHECKS_ITS_VARIABLE, TASK_IMAGE, Team, python
from tests.e2e.delivery.test_main_path import places_of
from tests.e2e.pods.conftest import ACCOUNT, asking, events_of, wait_ended

pytestmark = pytest.mark.e2e

REQUESTS = "podcertificaterequests"


def template_of(pod: Object) -> dict[str, Any]:
    """The pod as a template of a workload."""
    metadata = {key: pod["metadata"][key] for key in ("labels", "annotations")}
    return {"metadata": metadata, "spec": pod["spec"]}


def test_a_bare_pod_has_its_value_and_it_is_never_in_etcd(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    code = (
        f"{CHECKS_ITS_VARIABLE}\n"
        "content = open('/var/runtime/secrets/token.txt').read()\n"
        "print('file', hashlib.sha256(content.encode()).hexdigest())\n"
        "print(os.environ['RUNKEYS_SECRETS'])\n"
    )
    asked = "keys/token=SECRET_API_TOKEN, keys/token@token.txt"
    team.client.create(asking(team, asked=asked, code=code))
    found = wait_ended(team, "task")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    printed = team.client.logs("task", team.namespace)
    assert (
        printed
        == f'sha256 {team.digest}\nfile {team.digest}\n{{"token":"SECRET_API_TOKEN","token":"file:token.txt"}}\n'
    )

    assert places_of(team, node) == set()
    assert team.secret_story() == [], "no Secret was made at any time"

    # one request, answered once, deleted when it had been opened
    def calls() -> list[str]:
        return [
            f"{event.verb} {event.resource}"
            for event in in_order(node.audit.events(mark, namespace=team.namespace))
            if event.resource.startswith(REQUESTS)
            # The kubelet asks again if the API server's own cache has not come to the pod's node yet.
            and event.verb not in ("get", "list", "watch")
            and event.status < 300
        ]

    expected = [f"create {REQUESTS}", f"patch {REQUESTS}/status", f"delete {REQUESTS}"]
    wait_until("the request to be deleted", lambda: calls() == expected)
    (event,) = [item for item in events_of(team, "task") if item["reason"] == "SecretsDelivered"]
    assert event["message"] == "2 secrets of SecretBinding keys, for main"
    assert team.value not in team.operator.text()


def test_the_variable_of_an_entry_has_the_name_that_the_sdk_looks_for(team: Team) -> None:
    pod = asking(
        team,
        asked="keys/token",
        code="import os; print(sorted(k for k in os.environ if k.startswith('SECRET_')))",
    )
    team.client.create(pod)
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded"
    assert team.client.logs("task", team.namespace) == "['SECRET_TOKEN']\n"


def test_only_the_containers_that_are_named_have_it(team: Team) -> None:
    see = "import os; print('SECRET_API_TOKEN' in os.environ)"
    others = [
        {"name": name, "image": TASK_IMAGE, "command": python(see)} for name in ("proxy", "main", "helper")
    ]
    pod = asking(team, annotations={"runkeys.dev/containers": "main, helper"}, containers=others)
    team.client.create(pod)
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded"
    printed = {name: team.client.logs("task", team.namespace, name) for name in ("proxy", "main", "helper")}
    assert printed == {"proxy": "False\n", "main": "True\n", "helper": "True\n"}


def test_jobs_and_generated_names(team: Team) -> None:
    template = template_of(asking(team))
    metadata = {"name": "indexed", "namespace": team.namespace}
    spec = {"completionMode": "Indexed", "completions": 5, "parallelism": 5, "template": template}
    team.client.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    metadata = {"name": "cron", "namespace": team.namespace}
    cron = {"schedule": "* * * * *", "jobTemplate": {"spec": {"backoffLimit": 0, "template": template}}}
    team.client.create({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": cron})
    team.client.wait_for(
        "jobs",
        "indexed",
        team.namespace,
        lambda job: job["status"].get("succeeded") == 5,
    )

    def of_cron() -> list[Object]:
        pods = team.client.list("pods", team.namespace)
        return [
            pod
            for pod in pods
            if pod["metadata"]["name"].startswith("cron-") and pod["status"].get("phase") == "Succeeded"
        ]

    wait_until("a pod of the CronJob to succeed", lambda: bool(of_cron()))
    names = [
        pod["metadata"]["name"] for pod in team.client.list("pods", team.namespace, labels="job-name=indexed")
    ]
    for name in (*names, of_cron()[0]["metadata"]["name"]):
        assert team.client.logs(name, team.namespace) == f"sha256 {team.digest}\n"


def test_a_job_that_waits_has_nothing_delivered(team: Team, node: Cluster) -> None:
    mark = node.audit.mark()
    metadata = {"name": "queued", "namespace": team.namespace}
    spec = {"suspend": True, "template": template_of(asking(team))}
    team.client.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    team.client.create(asking(team, "other"))
    wait_ended(team, "other")

    def requests() -> list[str]:
        events = node.audit.events(mark, namespace=team.namespace)
        asked = [event for event in events if event.resource == REQUESTS and event.verb == "create"]
        return [event.name for event in asked if event.status < 300]

    assert len(requests()) == 1, "only the pod that was not in the queue has asked"
    team.client.patch("jobs", "queued", team.namespace, {"spec": {"suspend": False}})
    team.client.wait_for("jobs", "queued", team.namespace, lambda job: job["status"].get("succeeded") == 1)


def test_a_late_right_or_binding_lets_a_waiting_pod_go_on(team: Team) -> None:
    # May use it, and its access does not admit the pod.
    never = [{"pods": {"selector": {"matchLabels": {"app": "other"}}}}]
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": never}})
    team.client.create(asking(team))

    def told() -> bool:
        return any(
            item["reason"] == "AccessDenied" and "pods.selector does not match" in item["message"]
            for item in events_of(team, "task")
        )

    wait_until("an Event with the reason", told)
    pod = team.client.get("pods", "task", team.namespace)
    assert pod["status"]["phase"] == "Pending"
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": [{"pods": {}}]}})
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded"


def test_a_binding_for_runs_admits_no_pod_and_one_for_pods_no_run(team: Team) -> None:
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": [{"runSelector": {}}]}})
    team.client.create(asking(team))
    wait_until(
        "an Event",
        lambda: any("the rule is for runs" in item["message"] for item in events_of(team, "task")),
    )
    team.client.delete("pods", "task", team.namespace)
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": [{"pods": {}}]}})
    team.make_run()
    team.wait_condition("job", "Stalled", reason="AccessDenied")


def test_a_pod_waits_while_the_operator_is_away(team: Team) -> None:
    team.operator.stop()
    team.client.create(asking(team))
    team.client.wait_for("pods", "task", team.namespace, lambda pod: pod["spec"].get("nodeName"))
    team.operator.start()
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded"
    assert team.client.logs("task", team.namespace) == f"sha256 {team.digest}\n"


def test_the_pod_runs_as_the_account_that_may_use_the_binding(team: Team) -> None:
    pod = asking(team)
    team.client.create(pod)
    found = wait_ended(team, "task")
    assert found["spec"]["serviceAccountName"] == ACCOUNT
    source = next(item for item in found["spec"]["volumes"] if item["name"] == "runkeys-recipient")
    stamp = source["projected"]["sources"][0]["podCertificate"]["userAnnotations"]
    assert stamp["runkeys.dev/asked"] == "keys/token=SECRET_API_TOKEN"
    assert stamp["runkeys.dev/containers"] == "main"
