"""I4: whoever has got hold of the operator's own token can do with it what the operator does, and nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.client import ApiError, KubeClient, Object
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.runs.team import FINISHES_WHEN_TOLD, TASK_IMAGE, Team, python
from tests.e2e.trust.golden import check_golden, told

pytestmark = pytest.mark.e2e

Act = Callable[[KubeClient, Team, str], object]
"""With the operator's client, its team, and the name of a run's Job and Secret."""


def delete(secret: str = "", **options: Any) -> Act:
    """The answers to these would hold the Secret."""

    def act(stolen: KubeClient, team: Team, name: str) -> object:
        return stolen.request(
            "DELETE", f"/api/v1/namespaces/{team.namespace}/secrets/{secret or name}", **options
        )

    return act


def make_secret(name: str, **changes: Any) -> Act:
    def act(stolen: KubeClient, team: Team, job: str) -> object:
        owner = team.client.get("jobs", job, team.namespace)["metadata"]
        reference = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job,
            "uid": owner["uid"],
            "controller": True,
        }
        metadata = {"name": name, "namespace": team.namespace, "ownerReferences": [reference]}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "runkeys.dev/run-secret", "immutable": True}
        made = {**secret, **changes, "metadata": {**metadata, **changes.get("metadata", {})}}
        return stolen.create(made, dryRun="All")

    return act


TOKEN_OF = {"annotations": {"kubernetes.io/service-account.name": "default"}}


def make_job(name: str = "rk-forged", owner: str = "WorkflowRun", **of_pod: Any) -> Act:
    def act(stolen: KubeClient, team: Team, job: str) -> object:
        del job
        run = team.run()["metadata"]
        reference = {"apiVersion": "runkeys.dev/v1alpha1", "kind": owner, "name": "job", "uid": run["uid"]}
        container = {"name": "main", "image": TASK_IMAGE, **of_pod.get("container", {})}
        spec = {"restartPolicy": "Never", "containers": [container], **of_pod.get("pod", {})}
        made: Object = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": team.namespace,
                "ownerReferences": [{**reference, "controller": True}],
            },
            "spec": {"template": {"spec": spec}},
        }
        return stolen.create(made, dryRun="All")

    return act


def patch_run(change: object) -> Act:
    def act(stolen: KubeClient, team: Team, name: str) -> object:
        del name
        return stolen.patch("workflowruns", "job", team.namespace, change, dryRun="All")

    return act


def delete_run(stolen: KubeClient, team: Team, name: str) -> object:
    del name
    path = f"/apis/runkeys.dev/v1alpha1/namespaces/{team.namespace}/workflowruns/job"
    return stolen.request("DELETE", path, query={"dryRun": "All"})


def delete_job(stolen: KubeClient, team: Team, name: str) -> object:
    del name
    path = f"/apis/batch/v1/namespaces/{team.namespace}/jobs/theirs"
    return stolen.request("DELETE", path, query={"dryRun": "All"})


FOREIGN_VOLUME = {"volumes": [{"name": "stolen", "secret": {"secretName": "source"}}]}
FOREIGN_PROJECTED = {
    "volumes": [{"name": "stolen", "projected": {"sources": [{"secret": {"name": "source"}}]}}]
}
FOREIGN_VARIABLE = {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "source", "key": "token"}}}]}
FOREIGN = {"apiVersion": "v1", "kind": "DeleteOptions"}

ATTEMPTS: dict[str, Act] = {
    "delete the run's Secret: Foreground": delete(body={**FOREIGN, "propagationPolicy": "Foreground"}),
    "delete the run's Secret: Foreground, as a parameter": delete(query={"propagationPolicy": "Foreground"}),
    "delete the run's Secret: Orphan": delete(body={**FOREIGN, "propagationPolicy": "Orphan"}),
    "delete the run's Secret: orphanDependents": delete(body={**FOREIGN, "orphanDependents": True}),
    "delete the run's Secret: dry run": delete(body={**FOREIGN, "dryRun": ["All"]}),
    "delete the run's Secret: dry run, as a parameter": delete(query={"dryRun": "All"}),
    "delete somebody's Opaque Secret": delete("source", query={"dryRun": "All"}),
    "delete the sealing keys": delete("runkeys-sealing-keys", query={"dryRun": "All"}),
    "Secret: an account's token": make_secret(
        "rk-x", type="kubernetes.io/service-account-token", metadata=TOKEN_OF
    ),
    "Secret: Opaque": make_secret("rk-x", type="Opaque"),
    "Secret: without an owner": make_secret("rk-x", metadata={"ownerReferences": []}),
    "Secret: of another name than its Job": make_secret("rk-x"),
    "Job: mounts a foreign Secret": make_job(pod=FOREIGN_VOLUME),
    "Job: projects a foreign Secret": make_job(pod=FOREIGN_PROJECTED),
    "Job: variable from a foreign Secret": make_job(container=FOREIGN_VARIABLE),
    "Job: the sealing keys": make_job(
        container={"envFrom": [{"secretRef": {"name": "runkeys-sealing-keys"}}]}
    ),
    "Job: of any name": make_job("forged"),
    "Job: of another owner": make_job(owner="Deployment"),
    "Job: delete somebody's": delete_job,
    "run: cancel": patch_run({"spec": {"cancel": True}}),
    "run: relabel": patch_run({"metadata": {"labels": {"app": "other"}}}),
    "run: annotate": patch_run({"metadata": {"annotations": {"note": "x"}}}),
    "run: disown": patch_run({"metadata": {"finalizers": ["example.com/keep"]}}),
    "run: delete one that goes on": delete_run,
}


TAKE_IT_AWAY = [what for what in ATTEMPTS if what.startswith("delete the run's") and "dry" not in what]
"""Those that are no dry run."""


def scene_of(new_team: TeamMaker) -> tuple[Team, KubeClient, str]:
    """A run at work whose operator is away, and a client with the operator's token."""
    team = new_team()
    team.make_source()
    team.make_binding()
    found = team.make_run(command=python(FINISHES_WHEN_TOLD))
    team.wait_running(found)
    team.client.create(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "theirs", "namespace": team.namespace},
            "spec": {
                "suspend": True,
                "template": {
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": TASK_IMAGE}]}
                },
            },
        }
    )
    team.operator.stop()
    return team, team.client.with_token(team.client.token(team.namespace, "runkeys")), team.object_name(found)


def test_each_is_refused(new_team: TeamMaker, tmp_path: Path) -> None:
    team, stolen, name = scene_of(new_team)
    rows = {}
    for what, act in ATTEMPTS.items():
        with pytest.raises(ApiError) as refused:
            act(stolen, team, name)
        rows[what] = told(refused.value.message, team)
        assert team.value not in str(refused.value.body)
    print(f"{len(rows)} attempts with the operator's token refused")
    check_golden("operator-token.txt", rows, tmp_path)
    assert team.live_secrets() == [name]

    team.operator.start()
    team.tell_to_finish(team.run())
    team.wait_phase("job", "Succeeded")
    assert team.secret_story() == ["made", "gone"]


def test_twin_without_the_policy_the_token_can_do_all_of_that(new_team: TeamMaker) -> None:
    team, stolen, name = scene_of(new_team)
    with team.without_policies("operator"):
        for what, act in ATTEMPTS.items():
            if what not in TAKE_IT_AWAY:
                act(stolen, team, name)
        # This one takes it away, and its answer is the whole Secret: that is what the policy is for.
        answer = str(ATTEMPTS[TAKE_IT_AWAY[0]](stolen, team, name))
    assert base64.b64encode(team.value.encode()).decode() in answer
