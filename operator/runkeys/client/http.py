"""Runs from Python: start them, wait for them, read their logs, see for how long their secrets were in the cluster.

::

    client = Client(namespace="team-a")
    run = client.run({"spec": {"tasks": [...], "input": {"$secrets": {"ibm_api_token": token}}}})
    print(run.status.phase, client.exposure(run.metadata.name))

It talks to the API server with the rights of a kubeconfig, or of the pod that it runs in. ``$secrets`` in the input
are sealed before they leave the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from runkeys._text import documents
from runkeys._text.words import shell
from runkeys.api.common import API_VERSION
from runkeys.client.submission import describe_invalid, parse_run, prepared, refusals
from runkeys.names import LABEL_RUN, LABEL_TASK
from runkeys.planning.status import finished
from runkeys.problems import Conflict, Denied, Invalid, NotFound, Problem, TimedOut, Unreachable

if TYPE_CHECKING:
    from runkeys.api import SecretBinding, WorkflowRun
    from runkeys.sealing import PublicKey

PUBLIC_KEYS, CURRENT = "runkeys-public-keys", "current"
MERGE_PATCH = "application/merge-patch+json"
_KINDS = f"/apis/{API_VERSION}"
_CONNECT_SECONDS, _READ_SECONDS, _WATCH_SECONDS = 10, 60, 240
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Json = dict[str, Any]


@dataclass(frozen=True)
class Exposure:
    """A time during which the values of an attempt of a task were in the cluster.

    :ivar secrets: parameter names.
    :ivar deleted: None: they may be there now.
    """

    task: str
    attempt: int
    secrets: tuple[str, ...]
    created: datetime
    deleted: datetime | None

    @property
    def seconds(self) -> float | None:
        """How long; None while it goes on."""
        return None if self.deleted is None else max(0.0, (self.deleted - self.created).total_seconds())


@dataclass(frozen=True)
class LogLine:
    """A line that a container of a task printed, without its line break."""

    task: str
    pod: str
    text: str


def exposures_of(run: WorkflowRun) -> list[Exposure]:
    """All exposures of a run, in the order of its tasks and attempts."""
    asked = {task.name: tuple(item.name for item in task.secrets) for task in run.spec.tasks}
    return [
        Exposure(task.name, attempt.number, asked.get(task.name, ()), item.created, item.deleted)
        for task in run.status.tasks
        for attempt in task.attempts
        for item in attempt.exposures
    ]


def released(run: WorkflowRun) -> bool:
    """Whether no Secret of the run exists, and none will."""
    return any(item.type == "SecretsReleased" and item.status == "True" for item in run.status.conditions)


class Client:
    """A connection to a cluster, for one namespace.

    :ivar namespace: which one.
    :ivar server: address of the API server.
    """

    def __init__(
        self,
        namespace: str | None = None,
        *,
        context: str | None = None,
        kubeconfig: str | None = None,
        operator_namespace: str = "runkeys-system",
    ) -> None:
        """Nothing is sent yet.

        :param namespace: default: that of the kubeconfig's context or of the pod, else ``default``.
        :raises Unreachable: there is no kubeconfig and no pod's account, or the context is not in it.
        """
        self._api, found = _connect(kubeconfig, context)
        self.namespace = namespace or found or "default"
        self.server = str(self._api.configuration.host)
        self.operator_namespace = operator_namespace
        self._requester: Json | None = None

    # runs

    def submit(self, manifest: Mapping[str, Any]) -> WorkflowRun:
        """Start a run and return it as the API server has it.

        :param manifest: a WorkflowRun; apiVersion, kind and metadata may be left out. It is not changed. ``$secrets``
            in ``spec.input`` (text by field) are sealed for this namespace and user.
        :raises Invalid: it cannot work as it is written; nothing was sent.
        :raises Denied: the right to it, or to one of its bindings, is missing.
        """
        return self._parse(self.create(self.path("workflowruns"), self.prepare(manifest)))

    def prepare(self, manifest: Mapping[str, Any], say: Callable[[str], None] = lambda _: None) -> Json:
        """What `submit` would send: checked, with sealed input and the requester filled in."""
        made = prepared(manifest, self.namespace, self.requester, lambda: self.public_key(say))
        problems = [item for item in refusals(parse_run(made)) if item.permanent]
        if problems:
            raise Invalid("the run cannot work as it is written:\n" + "\n".join(f"  {p}" for p in problems))
        return made

    def run(self, manifest: Mapping[str, Any], *, timeout: float | None = None) -> WorkflowRun:
        """`submit` and `wait`."""
        return self.wait(self.submit(manifest).metadata.name, timeout=timeout)

    def get(self, name: str) -> WorkflowRun:
        """The run as it is now. Raises NotFound."""
        return self._parse(self.read(self.path("workflowruns", name)))

    def runs(self) -> list[WorkflowRun]:
        """All runs of the namespace, the oldest first."""
        runs = [self._parse(item) for item in self.items(self.path("workflowruns"))]
        return sorted(runs, key=lambda run: (str(run.metadata.creation_timestamp or ""), run.metadata.name))

    def watch(self, name: str, *, timeout: float | None = None) -> Iterator[WorkflowRun]:
        """The run as it is now, and again each time it has changed, without end.

        :param timeout: seconds.
        :raises NotFound: it does not exist, or was deleted.
        :raises TimedOut: when the time is over.
        """
        until = None if timeout is None else time.monotonic() + timeout
        last = ""
        while True:
            run = self.get(name)
            if run.metadata.resource_version != last:
                last = run.metadata.resource_version
                yield run
            for event in self._events(name, last, until):
                kind, raw = event.get("type"), event.get("object") or {}
                if kind == "DELETED":
                    raise NotFound(f"WorkflowRun {name} was deleted from namespace {self.namespace}")
                if kind not in ("ADDED", "MODIFIED"):
                    break  # too long ago: read it anew
                run = self._parse(raw)
                last = run.metadata.resource_version
                yield run

    def wait(self, name: str, *, timeout: float | None = None) -> WorkflowRun:
        """Wait until the run is over, in whatever way, and return it: see ``status.phase`` and `released`.

        :raises TimedOut: it is not over after ``timeout`` seconds. It goes on.
        """
        for run in self.watch(name, timeout=timeout):
            if finished(run.status):
                return run
        raise AssertionError("a watch ends by an error only")

    def logs(
        self, name: str, *, task: str | None = None, container: str | None = None, follow: bool = False
    ) -> Iterator[LogLine]:
        """What the run's pods printed, task by task; with ``follow`` until the run is over.

        :raises NotFound: the run or the task does not exist, or the Jobs with their logs are gone already.
        """
        run = self.get(name)
        names = [item.name for item in run.spec.tasks]
        if task is not None and task not in names:
            raise NotFound(f"run {name} has no task {task!r}; it has: {', '.join(names)}")
        seen: set[str] = set()
        while True:
            over = finished(run.status)
            for pod in self._pods(run, task, names):
                uid = pod["metadata"]["uid"]
                if uid in seen or not _has_started(pod):
                    continue
                seen.add(uid)
                yield from self._pod_logs(pod, container, follow=follow)
            if over or not follow:
                break
            run = self._next(run)
        started = any(attempt.start_time for item in run.status.tasks for attempt in item.attempts)
        if not seen and finished(run.status) and started:
            raise NotFound(
                f"the pods of run {name} are gone, and their logs with them: they stay for"
                f" {run.spec.job_ttl_seconds_after_finished} s (spec.jobTtlSecondsAfterFinished)"
            )

    def exposure(self, name: str) -> list[Exposure]:
        """When values of the run were in the cluster."""
        return exposures_of(self.get(name))

    def cancel(self, name: str) -> WorkflowRun:
        """Stop the run and take its secrets away. Cannot be taken back."""
        return self.change(name, {"cancel": True})

    def suspend(self, name: str) -> WorkflowRun:
        """End what runs, take its secrets away and start nothing until `resume`."""
        return self.change(name, {"suspend": True})

    def resume(self, name: str) -> WorkflowRun:
        """Let a suspended run go on."""
        return self.change(name, {"suspend": False})

    def change(self, name: str, spec: Mapping[str, Any]) -> WorkflowRun:
        """Change the few fields of a run that can be changed."""
        raw = self.request("PATCH", self.path("workflowruns", name), {"spec": spec}, content=MERGE_PATCH)
        return self._parse(raw)

    def delete(self, name: str) -> None:
        """Delete the run, and with it all that it made."""
        self.request("DELETE", self.path("workflowruns", name))

    # who asks, and what to seal with

    @property
    def requester(self) -> Json:
        """Who the API server takes this client for: ``username`` and ``groups``."""
        if self._requester is None:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            answer = self.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
            user = answer["status"]["userInfo"]
            self._requester = {"username": user["username"], "groups": list(user.get("groups") or [])}
        return self._requester

    def public_key(self, say: Callable[[str], None] = lambda _: None) -> PublicKey:
        """What to seal with, if it is the key that this user trusts.

        :param say: is told when a cluster's first key is trusted.
        :raises Denied: it is another key than before.
        """
        from runkeys.client.trusted_keys import Pins

        key = self.published_key()
        if not Pins().check(self.server, key):
            say(f"From now on key {key.key_id} of {self.server} is trusted; fingerprint {key.fingerprint}")
        return key

    def published_key(self) -> PublicKey:
        """The key that the cluster publishes, whether or not it is trusted."""
        from runkeys.sealing import PublicKey, SealError

        where = f"ConfigMap {PUBLIC_KEYS} in namespace {self.operator_namespace}"
        try:
            found = self.read(f"/api/v1/namespaces/{self.operator_namespace}/configmaps/{PUBLIC_KEYS}")
        except NotFound:
            raise NotFound(
                f"there is no {where}; install the operator, or say where it is with --operator-namespace"
            ) from None
        data: Json = found.get("data") or {}
        if CURRENT not in data:
            raise Unreachable(f"{where} holds no key yet; the operator makes one when it starts")
        try:
            return PublicKey.parse(data[CURRENT])
        except SealError as error:
            raise Invalid(f"{where}: {error}") from None

    def may(self, verb: str, resource: str, *, name: str = "", group: str = "runkeys.dev") -> bool:
        """Whether this user has a right in the namespace. ``resource`` may be ``pods/log``."""
        plural, _, subresource = resource.partition("/")
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": subresource,
            "name": name,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = self.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer["status"].get("allowed"))

    def bindings(self) -> list[SecretBinding]:
        """All SecretBindings of the namespace that this version can read."""
        from pydantic import ValidationError

        from runkeys.api import SecretBinding

        found = []
        for raw in self.items(self.path("secretbindings")):
            try:
                found.append(SecretBinding.parse(raw))
            except ValidationError:
                continue  # of a newer schema: `kubectl get rkb` says what there is
        return found

    # requests

    def path(self, plural: str, name: str = "") -> str:
        """Path of one of our kinds in the namespace."""
        return f"{_KINDS}/namespaces/{self.namespace}/{plural}" + (f"/{quote(name, safe='')}" if name else "")

    def read(self, path: str, **query: str) -> Json:
        """GET."""
        return self.request("GET", path, query=query)

    def items(self, path: str, **query: str) -> list[Json]:
        """GET of a list, all pages of it."""
        found: list[Json] = []
        while True:
            page = self.read(path, limit="500", **query)
            found += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    def create(self, path: str, body: Mapping[str, Any], **query: str) -> Json:
        """POST."""
        return self.request("POST", path, body, query=query)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Json:
        """Send one request and return the answer.

        :raises Problem: by the answer's status.
        """
        response = self._send(method, path, body, query or {}, content, _READ_SECONDS)
        answer = documents.read(response.data)
        return dict(answer)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None,
        query: Mapping[str, str],
        content: str,
        read_seconds: float,
        *,
        stream: bool = False,
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        _, url, headers, sent, _ = self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._api.call_api(
                method,
                url,
                header_params=headers,
                body=sent,
                _request_timeout=(_CONNECT_SECONDS, read_seconds),
            )
            if not stream:
                response.read()
        except ApiException as error:
            raise _problem(error.status, error.body, path) from None
        except HTTPError as error:
            raise Unreachable(f"{self.server} cannot be reached: {_reason(error)}") from None
        if response.status >= 400:
            raise _problem(response.status, response.read(), path)
        return response

    def _lines(self, path: str, query: Mapping[str, str], seconds: float) -> Iterator[str]:
        """An answer line by line as it comes; ends when it does, or when nothing comes for so long."""
        from urllib3.exceptions import HTTPError

        response = self._send("GET", path, None, query, "application/json", seconds, stream=True)
        rest = b""
        try:
            for chunk in response.response.stream(4096, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
        except HTTPError:
            pass  # it was cut off: whoever reads asks again
        finally:
            response.response.close()
        if rest:
            yield rest.decode(errors="replace")

    def _events(self, name: str, version: str, until: float | None) -> Iterator[Json]:
        left = _WATCH_SECONDS if until is None else min(_WATCH_SECONDS, until - time.monotonic())
        if left <= 0:
            raise TimedOut(f"run {name} is not over yet; it goes on: {shell('runkeys', 'status', name)}")
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(left))),
        }
        for line in self._lines(self.path("workflowruns"), query, left + 5):
            if line:
                yield documents.read(line)
            if until is not None and time.monotonic() >= until:
                return

    def _next(self, run: WorkflowRun) -> WorkflowRun:
        """The run after its next change; a pod may have started without one, so not later than in a second."""
        for event in self._events(run.metadata.name, run.metadata.resource_version, time.monotonic() + 1):
            if event.get("type") == "DELETED":
                raise NotFound(f"WorkflowRun {run.metadata.name} was deleted")
            break
        return self.get(run.metadata.name)

    def _pods(self, run: WorkflowRun, task: str | None, names: list[str]) -> list[Json]:
        selector = f"{LABEL_RUN}={run.metadata.name}" + (f",{LABEL_TASK}={task}" if task else "")
        pods = self.items(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=selector)
        ours = [
            pod for pod in pods if pod["metadata"]["labels"].get("runkeys.dev/run-uid") == run.metadata.uid
        ]
        order = {name: number for number, name in enumerate(names)}
        return sorted(
            ours,
            key=lambda pod: (
                order.get(pod["metadata"]["labels"].get(LABEL_TASK, ""), 0),
                pod["metadata"]["creationTimestamp"],
            ),
        )

    def _pod_logs(self, pod: Json, container: str | None, *, follow: bool) -> Iterator[LogLine]:
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        query = {"container": container or pod["spec"]["containers"][0]["name"]}
        if follow:
            query["follow"] = "true"
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/log"
        for line in self._lines(path, query, 3600 if follow else _READ_SECONDS):
            yield LogLine(labels.get(LABEL_TASK, ""), name, line)

    def _parse(self, raw: Json) -> WorkflowRun:
        from pydantic import ValidationError

        from runkeys.api import WorkflowRun

        try:
            return WorkflowRun.parse(raw)
        except ValidationError as error:
            problem = Invalid(
                f"this version of runkeys cannot read run {raw['metadata']['name']}: {describe_invalid(error)}"
            )
        raise problem


def _has_started(pod: Json) -> bool:
    states = [item.get("state") or {} for item in (pod.get("status") or {}).get("containerStatuses") or []]
    return any("running" in state or "terminated" in state for state in states)


def _connect(kubeconfig: str | None, context: str | None) -> tuple[Any, str | None]:
    """An ``ApiClient`` of the ``kubernetes`` library, and the namespace that the configuration names."""
    try:
        from kubernetes import client, config
    except ImportError:
        raise Unreachable(
            "the library `kubernetes` is missing; install it: pip install 'runkeys[cli]'"
        ) from None
    settings = client.Configuration()
    try:
        if kubeconfig is None and context is None and _in_pod():
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            return client.ApiClient(settings), _POD_NAMESPACE.read_text().strip()
        config.load_kube_config(kubeconfig, context, settings)  # type: ignore[no-untyped-call]
        contexts, current = config.list_kube_config_contexts(kubeconfig)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise Unreachable(f"there is no cluster to talk to: {error}") from None
    chosen = next((item for item in contexts if item["name"] == context), current) or {}
    settings.retries = False
    return client.ApiClient(settings), (chosen.get("context") or {}).get("namespace")


def _in_pod() -> bool:
    import os

    default = Path.home() / ".kube" / "config"
    return not os.environ.get("KUBECONFIG") and not default.exists() and _POD_NAMESPACE.exists()


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return str(inner).rpartition(": ")[2] or type(inner).__name__


def _problem(status: int | None, body: Any, path: str) -> Problem:
    """The error of an answer."""
    message, reason = "", ""
    try:
        answer = documents.read(body or "{}")
        message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
    except (ValueError, AttributeError):
        pass
    message = message or f"the API server answered {status} to {path}"
    if status == 404:
        if path.startswith(_KINDS) and reason != "NotFound":
            return Unreachable(
                "the cluster does not know WorkflowRun and SecretBinding; install Runkeys in it"
            )
        return NotFound(message)
    if status in (401, 403):
        return Denied(message)
    if status == 409:
        return Conflict(message)
    if status is not None and 400 <= status < 500 and status != 429:
        return Invalid(message)
    return Unreachable(message)
