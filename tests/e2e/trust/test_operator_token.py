"""I4: whoever has got hold of the operator's own token can do with it what the operator does, and nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runkeys.names import FINALIZER
from runkeys.policies import Account
from runkeys.policies.operator import LABEL_RUNS
from testing.cluster.base import wait_until
from testing.cluster.client import ApiError, KubeClient, Object
from testing.namespace import FINISHES_WHEN_TOLD, TASK_IMAGE, Team, has_right, python
from testing.people import give
from tests.e2e.runs.conftest import TeamMaker
from tests.e2e.trust.baseline_fields import BEYOND, admitted, template
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


def make_job(name: str = "rk-forged", owner: str = "WorkflowRun", namespace: str = "", **of_pod: Any) -> Act:
    def act(stolen: KubeClient, team: Team, job: str) -> object:
        del job
        run = team.run()["metadata"]
        reference = {"apiVersion": "runkeys.dev/v1alpha1", "kind": owner, "name": "job", "uid": run["uid"]}
        container = {"name": "main", "image": TASK_IMAGE, **of_pod.get("container", {})}
        spec = {"restartPolicy": "Never", "containers": [container], **of_pod.get("pod", {})}
        of_job = of_pod.get("template") or {"spec": spec}
        made: Object = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name,
                "namespace": namespace or team.namespace,
                "ownerReferences": [{**reference, "controller": True}],
            },
            "spec": {"template": of_job},
        }
        return stolen.create(made, dryRun="All")

    return act


@contextmanager
def unlabelled(stolen: KubeClient, team: Team) -> Iterator[None]:
    """Take the label that allows runs off the namespace, for a while. The policy, if it is there, knows by then."""
    name = Account.service_account(team.namespace, "runkeys").name_of("operator")
    there = team.client.find("validatingadmissionpolicybindings", name) is not None

    def label(value: str | None) -> None:
        team.client.patch("namespaces", team.namespace, None, {"metadata": {"labels": {LABEL_RUNS: value}}})
        # Admission knows namespaces from a watch.
        if there:
            wait_until(f"the label to be {value}", lambda: allows_runs(stolen, team) is (value is not None))

    label(None)
    try:
        yield
    finally:
        label("allowed")


def allows_runs(stolen: KubeClient, team: Team) -> bool:
    """Whether the operator may make a well-formed Job here."""
    try:
        make_job(pod={"serviceAccountName": "may-read-pods"})(stolen, team, "")
    except ApiError as error:
        if "in its own namespace" not in str(error):
            raise
        return False
    return True


def make_job_unlabelled(stolen: KubeClient, team: Team, job: str) -> object:
    """In the operator's own namespace, which nobody has said is one for runs."""
    with unlabelled(stolen, team):
        return make_job()(stolen, team, job)


def make_job_in_kube_system(stolen: KubeClient, team: Team, job: str) -> object:
    """As an operator that serves all namespaces may."""
    return make_job(namespace="kube-system")(stolen, team, job)


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


VERBS = ["get", "list", "watch", "update", "patch", "delete", "deletecollection"]


def as_account(verb: str) -> Object:
    return {"serviceAccountName": f"may-{verb}"}


def make_accounts(team: Team) -> None:
    """One that may do all but read Secrets, and one for each way of reading them."""
    secrets = {"apiGroups": [""], "resources": ["secrets"]}
    rules = {verb: {**secrets, "verbs": [verb]} for verb in VERBS}
    rules["get-keys"] = {**secrets, "verbs": ["get"], "resourceNames": ["runkeys-sealing-keys"]}
    rules["read-pods"] = {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["*"]}
    for what, one in rules.items():
        metadata = {"name": f"may-{what}", "namespace": team.namespace}
        team.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        give(team, f"may-{what}", f"system:serviceaccount:{team.namespace}:may-{what}", [one])


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
    "Job: in kube-system": make_job_in_kube_system,
    "Job: in its own namespace": make_job_unlabelled,
    **{f"Job: {path}": make_job(template=template(path)) for path in BEYOND},
    **{f"Job: as an account that may {verb} Secrets": make_job(pod=as_account(verb)) for verb in VERBS},
    "Job: as an account that may get the keys": make_job(pod=as_account("get-keys")),
    "Job: as the operator": make_job(pod={"serviceAccountName": "runkeys"}),
    "Job: delete somebody's": delete_job,
    "run: cancel": patch_run({"spec": {"cancel": True}}),
    "run: relabel": patch_run({"metadata": {"labels": {"app": "other"}}}),
    "run: annotate": patch_run({"metadata": {"annotations": {"note": "x"}}}),
    "run: disown": patch_run({"metadata": {"finalizers": ["example.com/keep"]}}),
    "run: delete one that goes on": delete_run,
}


def job_in_kube_system(team: Team) -> None:
    """The right that an operator for all namespaces has; goes with the others of the team."""
    version, name = "rbac.authorization.k8s.io/v1", f"anywhere.{team.namespace}"
    metadata = {"name": name, "labels": {"runkeys.test/namespace": team.namespace}}
    rule = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}
    role: Object = {"apiVersion": version, "kind": "ClusterRole", "metadata": metadata}
    team.client.create({**role, "rules": [rule]})
    reference = {"apiGroup": version.split("/", maxsplit=1)[0], "kind": "ClusterRole", "name": name}
    account = {"kind": "ServiceAccount", "name": "runkeys", "namespace": team.namespace}
    team.client.create({**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": [account]})
    who = {"user": f"system:serviceaccount:{team.namespace}:runkeys"}
    wait_until(
        "the right to be known", lambda: has_right(team.client, who, "kube-system", "create", "jobs.batch")
    )


def test_where_it_is_allowed_the_same_goes_through(new_team: TeamMaker) -> None:
    """A privileged namespace lets a pod near its node, and other rights of an account are not the operator's matter."""
    team, stolen, name = scene_of(new_team)
    make_job(pod={"serviceAccountName": "may-read-pods"})(stolen, team, name)
    make_job(template=admitted())(stolen, team, name)
    patch_run({"metadata": {"finalizers": [FINALIZER]}})(stolen, team, name)
    enforce(team, "privileged")
    for path in BEYOND:
        make_job(template=template(path))(stolen, team, name)


def enforce(team: Team, level: str) -> None:
    label = {"pod-security.kubernetes.io/enforce": level}
    team.client.patch("namespaces", team.namespace, None, {"metadata": {"labels": label}})
    # Admission knows namespaces from a watch.
    near_its_node = {"hostNetwork": True, "containers": [{"name": "main", "image": "localhost/none:1"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": near_its_node}

    def admits() -> bool:
        metadata = {"name": "near-its-node", "namespace": team.namespace}
        try:
            team.client.create({**pod, "metadata": metadata}, dryRun="All")
        except ApiError:
            return False
        return True

    wait_until(f"{level} to be enforced", lambda: admits() is (level == "privileged"))


def test_pod_security_itself_admits_and_refuses_the_same(new_team: TeamMaker) -> None:
    """The control: each attempt at a pod is one beyond baseline, by the field that it says."""
    team = new_team(start=False)
    enforce(team, "baseline")

    def make(pod: Object) -> object:
        metadata = {**pod.get("metadata", {}), "name": "asked", "namespace": team.namespace}
        return team.client.create(
            {"apiVersion": "v1", "kind": "Pod", **pod, "metadata": metadata}, dryRun="All"
        )

    make(admitted())
    for path in BEYOND:
        with pytest.raises(ApiError, match='violates PodSecurity "baseline:latest"'):
            make(template(path))
    enforce(team, "privileged")
    for path in BEYOND:
        make(template(path))


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
    make_accounts(team)
    job_in_kube_system(team)
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


def test_control_without_the_policy_the_token_can_do_all_of_that(new_team: TeamMaker) -> None:
    team, stolen, name = scene_of(new_team)
    with team.without_policies("operator"):
        for what, act in ATTEMPTS.items():
            if what not in TAKE_IT_AWAY:
                act(stolen, team, name)
        # This one takes it away, and its answer is the whole Secret: that is what the policy is for.
        answer = str(ATTEMPTS[TAKE_IT_AWAY[0]](stolen, team, name))
    assert base64.b64encode(team.value.encode()).decode() in answer
