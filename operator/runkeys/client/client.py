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
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runkeys._text import documents
from runkeys._text.words import shell
from runkeys.api.common import describe_invalid
from runkeys.client.exposure import Exposure, exposures_of
from runkeys.client.http import MERGE_PATCH, Api, Json
from runkeys.client.logs import LogLine, read_logs
from runkeys.client.submission import parse_run, prepared, refusals
from runkeys.names import PUBLIC_KEYS
from runkeys.problems import Invalid, NotFound, TimedOut, Unreachable

if TYPE_CHECKING:
    from runkeys.api import SecretBinding, WorkflowRun
    from runkeys.sealing import PublicKey

_CURRENT_KEY = "current"
_WATCH_SECONDS = 240


class Client(Api):
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
        super().__init__(namespace, context, kubeconfig)
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
            if run.status.finished:
                return run
        raise AssertionError("a watch ends by an error only")

    def logs(
        self, name: str, *, task: str | None = None, container: str | None = None, follow: bool = False
    ) -> Iterator[LogLine]:
        """What the run's pods printed, task by task; with ``follow`` until the run is over.

        :raises NotFound: the run or the task does not exist, or the Jobs with their logs are gone already.
        """
        return read_logs(self, name, task, container, follow=follow)

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
        from runkeys.client.trusted_keys import TrustedKeys

        key = self.published_key()
        if not TrustedKeys().check(self.server, key):
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
        if _CURRENT_KEY not in data:
            raise Unreachable(f"{where} holds no key yet; the operator makes one when it starts")
        try:
            return PublicKey.parse(data[_CURRENT_KEY])
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
        for line in self.lines(self.path("workflowruns"), query, left + 5):
            if line:
                yield documents.read(line)
            if until is not None and time.monotonic() >= until:
                return

    def after_next_change(self, run: WorkflowRun) -> WorkflowRun:
        """The run after its next change; a pod may have started without one, so not later than in a second."""
        for event in self._events(run.metadata.name, run.metadata.resource_version, time.monotonic() + 1):
            if event.get("type") == "DELETED":
                raise NotFound(f"WorkflowRun {run.metadata.name} was deleted")
            break
        return self.get(run.metadata.name)

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
