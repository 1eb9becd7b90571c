"""A team's namespace in a test: a source Secret with a canary, a binding, an operator, and runs."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runkeys.names import PUBLIC_KEYS, attempt_name
from runkeys.policies import Account
from runkeys.sealing import PrivateKey
from runkeys_operator.checks.admission import Period, Record
from runkeys_operator.checks.policies import KEPT
from testing.cluster.audit import AuditEvent, in_order
from testing.cluster.base import Cluster, ClusterError, wait_until
from testing.cluster.client import PATIENCE, ApiError, KubeClient, Object
from testing.operators import (
    Operator,
    fills_in,
    install_rights,
    installed_policies,
    operator_of,
    remove_rights,
    requester_of,
    settle_policies,
    wait_believed,
    wait_in_force,
    wait_not_filled_in,
)

TASK_IMAGE = "localhost/runkeys-task:1"
SOURCE = "source"


def canary() -> str:
    """Return a random value that occurs nowhere else. It is not secret."""
    return f"canary-{secrets.token_hex(16)}"


def python(code: str) -> list[str]:
    """Return a container command that runs ``code``."""
    return ["python3", "-c", code]


CHECKS_ITS_VARIABLE = (
    "import os, hashlib;"
    "value = os.environ['SECRET_API_TOKEN'];"
    "print('sha256', hashlib.sha256(value.encode()).hexdigest())"
)
"""Code of a task that prints the hash of its value: it proves that the value is right without printing it."""

FINISHES_WHEN_TOLD = (
    f"{CHECKS_ITS_VARIABLE};import time\nwhile not os.path.exists('/tmp/finish'): time.sleep(0.05)"
)
"""The same code, which then keeps running until :meth:`Team.tell_to_finish`."""

HELD_BACK: dict[str, Any] = {"schedulingGates": [{"name": "runkeys.test/held"}]}
"""Part of a pod spec: the pod gets no node until :meth:`Team.let_go`."""

_OVER = ("Succeeded", "Failed")
# What is said of a kubelet that does not listen yet, and of one that does not know its pods yet.
_JUST_STARTED = ("error dialing backend", "unable to upgrade connection: pod does not exist")


@dataclass
class Team:
    """A namespace with an operator that serves it."""

    cluster: Cluster
    namespace: str
    operator: Operator
    value: str = field(default_factory=canary)
    since: int = field(init=False)
    """A revision of etcd before the first object of the team was created."""

    def __post_init__(self) -> None:
        account = self.client.get("serviceaccounts", "default", self.namespace)
        self.since = int(account["metadata"]["resourceVersion"])

    @property
    def client(self) -> KubeClient:
        return self.cluster.client

    def may_be_near_the_node(self) -> None:
        """Set Pod Security to ``privileged``, so that pods may use the network and the files of their node."""
        privileged = {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}
        self.client.patch("namespaces", self.namespace, None, {"metadata": privileged})

    # objects that a team writes

    def make_source(self, name: str = SOURCE, **data: str) -> Object:
        """Create the source Secret."""
        return self.client.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": self.namespace},
                "stringData": data or {"token": self.value},
            }
        )

    def make_binding(self, name: str = "keys", **spec: Any) -> Object:
        """Create a binding that gives ``token`` to every run of the namespace, changed by ``spec``."""
        return self.client.create(binding(self.namespace, name, **spec))

    def make_run(self, name: str = "job", *, task: dict[str, Any] | None = None, **spec: Any) -> Object:
        """Create a run of one task that prints the hash of its secret, changed by ``task`` and ``spec``."""
        return self.client.create(run(self.namespace, name, task=task, **spec))

    # what happens to a pod

    def pod(self, found: Object) -> Object:
        """Wait until the pod of the run's Job exists, and return it."""
        return self.wait_pod(found, bool)

    def let_go(self, found: Object) -> None:
        """Let the scheduler find a node for a pod that was created with ``HELD_BACK``."""
        name = self.pod(found)["metadata"]["name"]
        self.client.patch("pods", name, self.namespace, {"spec": {"schedulingGates": None}})

    def tell_to_finish(self, found: Object, container: str = "main") -> None:
        """End a container that runs ``FINISHES_WHEN_TOLD``."""
        self.tell_pod_to_finish(self.pod(found)["metadata"]["name"], container)

    def tell_pod_to_finish(self, name: str, container: str = "main") -> None:
        """End a container of the pod of this name that runs ``FINISHES_WHEN_TOLD``."""

        def told() -> bool:
            say = ("touch", "/tmp/finish")
            try:
                self.cluster.kubectl("exec", "-n", self.namespace, name, "-c", container, "--", *say)
            except ClusterError as error:
                if any(words in str(error) for words in _JUST_STARTED):
                    return False
                if "exit code 137" not in str(error):  # the container ended before the command in it
                    raise
            return True

        wait_until(f"pod {name} to be told", told)

    def wait_running(self, found: Object) -> Object:
        """Wait until the run's container runs, and return its pod. The Secret then exists.

        The container has to run until it is told to finish: on a busy machine it would be over before anybody looks.
        """
        seen = self.wait_pod(found, lambda pod: pod["status"]["phase"] in ("Running", *_OVER))
        assert seen["status"]["phase"] == "Running", seen["status"]
        return seen

    # results

    @property
    def digest(self) -> str:
        """SHA-256 of the value, in hexadecimal: tasks print it when they find the value."""
        return hashlib.sha256(self.value.encode()).hexdigest()

    def run(self, name: str = "job") -> Object:
        """Return the run as it is now."""
        return self.client.get("workflowruns", name, self.namespace)

    def wait_run(self, name: str, what: Any, timeout: float = PATIENCE, *, says: str = "") -> Object:
        """Wait until ``what(run)`` is true, and return the run.

        :param says: the condition in words, for the error.
        :raises AssertionError: after ``timeout`` seconds, with the run and the operator's log.
        """
        try:
            return self.client.wait_for("workflowruns", name, self.namespace, what, timeout, says)
        except AssertionError as error:
            raise AssertionError(f"{error}\noperator's log:\n{self.operator.text()[-6000:]}") from None

    def wait_phase(self, name: str, *phases: str, timeout: float = PATIENCE) -> Object:
        """Wait until the run has one of ``phases``, and return it."""
        return self.wait_run(name, lambda found: phase(found) in phases, timeout, says=f"phase {phases}")

    def wait_condition(
        self, name: str, kind: str, status: str = "True", reason: str = "", timeout: float = PATIENCE
    ) -> Object:
        """Wait until the run's condition ``kind`` has this status, and this reason if given. Return the run."""

        def holds(found: Object) -> bool:
            item = condition(found, kind)
            return item.get("status") == status and (not reason or item.get("reason") == reason)

        return self.wait_run(name, holds, timeout, says=f"{kind}={status} {reason}")

    def object_name(self, found: Object) -> str:
        """Return the name of the Job and the Secret of the first attempt."""
        metadata = found["metadata"]
        return attempt_name(metadata["name"], metadata["uid"], found["spec"]["tasks"][0]["name"], 1)

    def wait_pod(self, found: Object, what: Any, timeout: float = PATIENCE) -> Object:
        """Wait until ``what(pod)`` is true for the pod of the run's Job, and return the pod."""
        name = self.object_name(found)
        self.client.wait_for(
            "jobs", name, self.namespace, lambda job: job["metadata"]["uid"], timeout, "to be made"
        )
        until = self.client.list("pods", self.namespace, labels=f"batch.kubernetes.io/job-name={name}")
        if not until:
            for _, pod in self.client.watch(
                "pods", self.namespace, timeout=timeout, labels=f"batch.kubernetes.io/job-name={name}"
            ):
                until = [pod]
                break
        assert until, f"Job {name} has no pod after {timeout} s"
        return self.client.wait_for("pods", until[0]["metadata"]["name"], self.namespace, what, timeout)

    def output(self, found: Object, container: str = "main") -> str:
        """Return the log of the run's pod."""
        name = self.object_name(found)
        pods = self.client.list("pods", self.namespace, labels=f"batch.kubernetes.io/job-name={name}")
        return self.client.logs(pods[0]["metadata"]["name"], self.namespace, container)

    def printed(self, found: Object | None = None) -> list[str]:
        """Return the logs, if not empty, of all pods of one run or of all runs."""
        labels = f"runkeys.dev/run={found['metadata']['name']}" if found else ""
        texts = []
        for pod in self.client.list("pods", self.namespace, labels=labels):
            # A pod that has not started yet, or was just deleted, has no logs.
            with suppress(ApiError):
                texts.append(self.client.logs(pod["metadata"]["name"], self.namespace))
        return [text for text in texts if text]

    def live_secrets(self) -> list[str]:
        """Return the names of the run Secrets in the namespace, read from the API server."""
        found = self.client.list("secrets", self.namespace, fields="type=runkeys.dev/run-secret")
        return [item["metadata"]["name"] for item in found]

    def secret_story(self, name: str = "rk-") -> list[str]:
        """Return etcd's history of run Secrets with this prefix since the team began: ``made`` or ``gone``, in order.

        A change of an existing Secret is ``made`` once more.
        """
        key = f"/registry/secrets/{self.namespace}/{name}"
        return [
            "gone" if item.value is None else "made"
            for item in self.cluster.etcd.history(key, since=self.since)
        ]

    def versions(self) -> list[tuple[str, str]]:
        """Return names and versions of the runs and pods of the namespace. A different list means progress."""
        found = (*self.client.list("workflowruns", self.namespace), *self.client.list("pods", self.namespace))
        return sorted((item["metadata"]["name"], item["metadata"]["resourceVersion"]) for item in found)

    def unfinished(self) -> str:
        """Return the runs that have not ended, their pods, and the end of the operator's log, for an error."""
        runs = self.client.list("workflowruns", self.namespace)
        lines = [
            f"{item['metadata']['name']}: {json.dumps(item.get('status'))}"
            for item in runs
            if phase(item) not in ("Succeeded", "Failed", "Cancelled")
        ]
        names = {line.partition(":")[0] for line in lines}
        lines += [
            f"pod {item['metadata']['name']}: {json.dumps(item['status'])}"
            for item in self.client.list("pods", self.namespace)
            if item["metadata"].get("labels", {}).get("runkeys.dev/run") in names
        ]
        return "\n".join([*lines, "the operator's log:", self.operator.text()[-6000:]])

    def calls(self, mark: int, *wanted: str, name: str = "", at_least: int = 0) -> list[AuditEvent]:
        """Return the successful calls in the namespace that ``wanted`` names (``"delete jobs"``), as they came.

        :param name: of the object; empty: any.
        :param at_least: wait for so many. The audit log has a call once it is answered, and a watch, or its effect, may
            show it earlier.
        """

        def found() -> list[AuditEvent]:
            return in_order(
                event
                for event in self.cluster.audit.events(mark, namespace=self.namespace)
                if f"{event.verb} {event.resource}" in wanted
                and event.status < 300
                and name in ("", event.name)
            )

        if at_least:
            wait_until(f"{at_least} calls to be on record", lambda: len(found()) >= at_least)
        return found()

    @contextmanager
    def without_right(self, verb: str, resource: str) -> Iterator[None]:
        """Remove one of the operator's rights for a while, after the operator has checked its rights at its start."""
        self.operator.wait_serving()
        plural = resource.partition(".")[0]
        (name,) = {
            role["metadata"]["name"]
            for role in self.client.list("roles", self.namespace, labels="app.kubernetes.io/name=runkeys")
            if any(verb in rule["verbs"] and plural in rule["resources"] for rule in role["rules"])
            and not any(rule.get("resourceNames") for rule in role["rules"])
            and not role["metadata"]["name"].endswith("-drain")  # not the operator's
        }
        rules = self.client.get("roles", name, self.namespace)["rules"]
        fewer = [
            {**rule, "verbs": [item for item in rule["verbs"] if item != verb]}
            if plural in rule["resources"]
            else rule
            for rule in rules
        ]
        self.client.patch("roles", name, self.namespace, {"rules": fewer})
        self.wait_may(False, verb, resource)
        try:
            yield
        finally:
            self.client.patch("roles", name, self.namespace, {"rules": rules})
            self.wait_may(True, verb, resource)

    @contextmanager
    def without_policies(self, *names: str, believed: bool = True) -> Iterator[None]:
        """Disable admission policies of the operator for a while, by deleting their policy bindings.

        Use it to show what the policy alone prevents, or to create an object that it would refuse and see what else
        protects against it.

        :param names: of policies: ``names``, ``pods`` and so on. ``requester`` is the one that fills in the requester.
        :param believed: the operator still trusts what was created before. Else it may no longer know that the
            policies were in force then.
        """
        if believed and self.operator.running:
            self._have_looked()
        account = Account.service_account(self.namespace, "runkeys")
        kinds = {True: "mutatingadmissionpolicybindings", False: "validatingadmissionpolicybindings"}
        taken = [
            (plural, self.client.get(plural, account.name_of(name)))
            for name in names
            for plural in [kinds[name in ("requester", "inject")]]
        ]
        for plural, item in taken:
            self.client.delete(plural, item["metadata"]["name"])
        settle_policies(self.cluster, self.namespace)
        if "requester" in names:
            wait_not_filled_in(self.cluster, self.namespace)
        try:
            yield
        finally:
            for _, item in taken:
                metadata = {key: item["metadata"][key] for key in ("name", "labels")}
                self.client.create({**item, "metadata": metadata})
            settle_policies(self.cluster, self.namespace)
            if "requester" in names:
                wait_in_force(self.cluster, self.namespace)
            wait_believed(self.cluster, self.namespace)
            if believed and not self.operator.running:
                self._vouch()

    def _have_looked(self) -> None:
        """Make the operator check the policies now, by a SecretReveal, so that it trusts what was created before."""
        moment = datetime.now(UTC) + timedelta(seconds=2)
        wait_until("what was made to be two seconds old", lambda: datetime.now(UTC) > moment)
        spec = {"personal": True, "entry": "none", "publicKey": PrivateKey.generate().public.text}
        if not fills_in(self.client):
            spec["requester"] = requester_of(self.client)
        made = self.client.create(
            {
                "apiVersion": "runkeys.dev/v1alpha1",
                "kind": "SecretReveal",
                "metadata": {"generateName": "looks-", "namespace": self.namespace},
                "spec": spec,
            }
        )
        name = made["metadata"]["name"]
        self.client.wait_for(
            *("secretreveals", name, self.namespace),
            lambda item: item.get("status", {}).get("answeredTime"),
        )
        self.client.delete("secretreveals", name, self.namespace)

    def _vouch(self) -> None:
        """Record, in place of an operator that does not run, that the policies were in force all the time."""
        found = self.client.get("configmaps", PUBLIC_KEYS, self.namespace)
        record = Record.parse((found["metadata"].get("annotations") or {}).get(KEPT, ""))
        if record is None:
            always = Period(datetime(2000, 1, 1, tzinfo=UTC), None)
            record = Record((always,), {}, datetime.now(UTC))
        policies = {
            f"{kind}/{item['metadata']['name']}": (item["metadata"]["uid"], item["metadata"]["generation"])
            for kind, item in installed_policies(self.cluster, self.namespace)
        }
        change = {"metadata": {"annotations": {KEPT: replace(record, policies=policies).wire()}}}
        self.client.patch("configmaps", PUBLIC_KEYS, self.namespace, change)

    def may(self, verb: str, resource: str, name: str = "", *, who: Object | None = None) -> bool:
        """Whether somebody has a right on ``resource``, e.g. ``secrets``, ``jobs.batch`` or ``serviceaccounts/token``.

        :param who: ``user`` and ``groups`` as in a SubjectAccessReview; None: the operator's account.
        """
        who = who or {"user": f"system:serviceaccount:{self.namespace}:runkeys"}
        return has_right(self.client, who, self.namespace, verb, resource, name)

    def wait_may(self, expected: bool, verb: str, resource: str, name: str = "") -> None:
        """Wait until the API server applies a changed right."""
        wait_until(f"{verb} {resource} to be {expected}", lambda: self.may(verb, resource, name) is expected)

    def jobs(self) -> list[str]:
        """Return the names of the Jobs in the namespace."""
        return [job["metadata"]["name"] for job in self.client.list("jobs", self.namespace)]


def binding(namespace: str, name: str = "keys", **spec: Any) -> Object:
    """Return a SecretBinding that gives ``token`` to every run of the namespace, changed by ``spec``."""
    return {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "SecretBinding",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "secrets": [{"name": "token", "secretKeyRef": {"name": SOURCE, "key": "token"}}],
            "access": [{"runSelector": {}}],
            **spec,
        },
    }


def run(
    namespace: str,
    name: str = "job",
    *,
    task: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    pod: dict[str, Any] | None = None,
    command: list[str] | None = None,
    **spec: Any,
) -> Object:
    """Return a WorkflowRun of one task.

    :param pod: changes of the pod spec. :param command: of the container.
    """
    container = {
        "name": "main",
        "image": TASK_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": command or python(CHECKS_ITS_VARIABLE),
    }
    pod_spec = {"terminationGracePeriodSeconds": 1, "containers": [container], **(pod or {})}
    return {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {"app": "test"}},
        "spec": {
            "bindings": [{"name": "keys"}],
            "tasks": [
                {
                    "name": "work",
                    "secrets": [{"name": "api_token", "secret": "token"}],
                    "template": {"spec": pod_spec},
                    **(task or {}),
                }
            ],
            **spec,
        },
    }


def phase(found: Object) -> str:
    """Return the run's phase; empty if it has none yet."""
    return str(found.get("status", {}).get("phase", ""))


def condition(found: Object, kind: str) -> dict[str, Any]:
    """Return one condition of the run; empty if the run does not have it."""
    conditions = found.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == kind), {})


def exposures(found: Object) -> list[dict[str, Any]]:
    """Return all exposures of the run's first task."""
    return [
        item
        for task in found.get("status", {}).get("tasks", [])
        for attempt in task.get("attempts", [])
        for item in attempt.get("exposures", [])
    ]


def make_namespace(client: KubeClient, hint: str) -> str:
    """Create a namespace named after a test, ready for pods, and return its name."""
    readable = re.sub(r"[^a-z0-9]+", "-", hint.lower()).strip("-").removeprefix("test-")[:40].rstrip("-")
    name = f"{readable}-{secrets.token_hex(3)}"
    client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    # A pod that is created before its service account would be refused.
    client.wait_for("serviceaccounts", "default", name, bool)
    return name


def remove_namespace(cluster: Cluster, name: str) -> None:
    """Delete a namespace, without waiting, and what ``install_rights`` created for it in the whole cluster.

    Policies that are left cost every later request something: the API server looks at each of them.
    """
    cluster.client.delete("namespaces", name, missing_ok=True)
    remove_rights(cluster, name)


def has_right(
    client: KubeClient, who: Object, namespace: str, verb: str, resource: str, name: str = ""
) -> bool:
    """Whether somebody has a right on ``resource``, e.g. ``secrets``, ``jobs.batch`` or ``serviceaccounts/token``.

    :param who: ``user`` and ``groups`` as in a SubjectAccessReview.
    """
    whole, _, group = resource.partition(".")
    plural, _, subresource = whole.partition("/")
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            **who,
            "resourceAttributes": {
                "namespace": namespace,
                "verb": verb,
                "group": group,
                "resource": plural,
                "subresource": subresource,
                "name": name,
            },
        },
    }
    answer = client.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
    return bool(answer["status"]["allowed"])


@contextmanager
def team_in(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    *arguments: str,
    server: str | None = None,
    sources: tuple[str, ...] = (SOURCE,),
    others: tuple[str, ...] = (),
    sets: tuple[str, ...] = (),
) -> Iterator[Team]:
    """Yield a team in ``namespace``, with rights, the sources' opt-in, and an operator that is not started yet.

    :param others: further namespaces that the operator serves.
    :param sets: further values of the chart.
    """
    account = install_rights(cluster, namespace, sources, others, sets=sets)
    arguments += tuple(part for name in others for part in ("--namespace", name))
    with operator_of(cluster, namespace, folder, *arguments, account=account, server=server) as operator:
        yield Team(cluster, namespace, operator)
