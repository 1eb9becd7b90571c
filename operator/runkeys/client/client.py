"""Runs from Python: start runs, wait for them, read their logs, and see how long their secrets were in the cluster.

::

    client = Client(namespace="team-a")
    run = client.run({"spec": {"tasks": [...], "input": {"$secrets": {"ibm_api_token": token}}}})
    print(run.status.phase, client.exposure(run.metadata.name))

The client talks to the API server with the rights of a kubeconfig, or of the pod that it runs in. ``$secrets`` in the
input are sealed before they leave the process.
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
from runkeys.config import choose
from runkeys.names import API_VERSION, OPERATOR_NAMESPACE, PUBLIC_KEYS
from runkeys.problems import Invalid, NotFound, TimedOut, Unreachable

if TYPE_CHECKING:
    from runkeys.api import SecretBinding, WorkflowRun
    from runkeys.sealing import PublicKey

_CURRENT_KEY = "current"
_WATCH_SECONDS = 240


class Client(Api):
    """A client for one namespace of a cluster.

    :ivar namespace: the namespace.
    :ivar server: address of the API server.
    """

    def __init__(
        self,
        namespace: str | None = None,
        *,
        context: str | None = None,
        kubeconfig: str | None = None,
        operator_namespace: str | None = None,
    ) -> None:
        """Create a client. It sends no request yet. What is not given comes from `runkeys.config`.

        :param namespace: default: the namespace of the configuration, of the kubeconfig's context or of the pod, else
            ``default``.
        :param context: a context of the kubeconfig. Without it and without ``kubeconfig``, config.toml may name one.
        :raises Unreachable: there is neither a kubeconfig nor a pod's service account.
        :raises NotFound: the kubeconfig does not have the context.
        """
        if context is None and kubeconfig is None:
            chosen = choose()
            namespace, context = namespace or chosen.namespace, chosen.context
            kubeconfig = chosen.kubeconfig
            operator_namespace = operator_namespace or chosen.operator_namespace
        super().__init__(namespace, context, kubeconfig)
        self.operator_namespace = operator_namespace or OPERATOR_NAMESPACE
        self._requester: Json | None = None

    # runs

    def submit(self, manifest: Mapping[str, Any]) -> WorkflowRun:
        """Start a run and return it as the API server created it.

        :param manifest: a WorkflowRun. apiVersion, kind and metadata may be left out. It is not changed. ``$secrets``
            in ``spec.input`` (texts by field) are sealed for this namespace and user.
        :raises Invalid: the run cannot work as it is written, and nothing was sent; or the API server refused it.
        :raises Denied: the right to create the run, or to use one of its bindings, is missing.
        """
        return self._parse(self.create(self.path("workflowruns"), self.prepare(manifest)))

    def prepare(self, manifest: Mapping[str, Any], say: Callable[[str], None] = lambda _: None) -> Json:
        """Check a run and return the object that `submit` would send, with sealed input and the requester.

        :raises Invalid: the run cannot work as it is written.
        """
        made = prepared(manifest, self.namespace, self.requester, lambda: self.public_key(say))
        problems = [item for item in refusals(parse_run(made)) if item.permanent]
        if problems:
            raise Invalid("the run cannot work as it is written:\n" + "\n".join(f"  {p}" for p in problems))
        return made

    def run(self, manifest: Mapping[str, Any], *, timeout: float | None = None) -> WorkflowRun:
        """Start a run with `submit` and wait for it with `wait`."""
        return self.wait(self.submit(manifest).metadata.name, timeout=timeout)

    def get(self, name: str) -> WorkflowRun:
        """Return the run as it is now. Raises NotFound."""
        return self._parse(self.read(self.path("workflowruns", name)))

    def runs(self, *, all_namespaces: bool = False) -> list[WorkflowRun]:
        """Return all runs of the namespace, or of all namespaces, oldest first."""
        path = f"/apis/{API_VERSION}/workflowruns" if all_namespaces else self.path("workflowruns")
        runs = [self._parse(item) for item in self.items(path)]
        return sorted(runs, key=lambda run: (str(run.metadata.creation_timestamp or ""), run.metadata.name))

    def watch(self, name: str, *, timeout: float | None = None) -> Iterator[WorkflowRun]:
        """Yield the run as it is now, and again after each change, without end.

        :param timeout: maximum time in seconds.
        :raises NotFound: the run does not exist, or was deleted.
        :raises TimedOut: the timeout was reached.
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
        """Wait until the run has finished, and return it. For its result see ``status.phase`` and `released`.

        :raises TimedOut: the run has not finished after ``timeout`` seconds. It continues to run.
        """
        for run in self.watch(name, timeout=timeout):
            if run.status.finished:
                return run
        raise AssertionError("a watch ends by an error only")

    def logs(
        self, name: str, *, task: str | None = None, container: str | None = None, follow: bool = False
    ) -> Iterator[LogLine]:
        """Yield the log lines of the run's pods, task by task. With ``follow``, continue until the run has finished.

        :raises NotFound: the run or the task does not exist, no pod of it has started, or the Jobs and their logs are
            already deleted.
        """
        return read_logs(self, name, task, container, follow=follow)

    def exposure(self, name: str) -> list[Exposure]:
        """Return the periods in which values of the run were in the cluster."""
        return exposures_of(self.get(name))

    def cancel(self, name: str) -> WorkflowRun:
        """Stop the run and delete the Secrets created for it. This cannot be undone."""
        return self.change(name, {"cancel": True})

    def suspend(self, name: str) -> WorkflowRun:
        """Stop the running tasks, delete the Secrets created for the run, and start nothing until `resume`."""
        return self.change(name, {"suspend": True})

    def resume(self, name: str) -> WorkflowRun:
        """Continue a suspended run."""
        return self.change(name, {"suspend": False})

    def change(self, name: str, spec: Mapping[str, Any]) -> WorkflowRun:
        """Change those fields of a run's spec that can be changed."""
        raw = self.request("PATCH", self.path("workflowruns", name), {"spec": spec}, content=MERGE_PATCH)
        return self._parse(raw)

    def delete(self, name: str) -> None:
        """Delete the run and all that was created for it."""
        self.request("DELETE", self.path("workflowruns", name))

    # who asks, and what to seal with

    @property
    def requester(self) -> Json:
        """This client's user as the API server sees it: ``username`` and ``groups``."""
        if self._requester is None:
            review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
            answer = self.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
            user = answer["status"]["userInfo"]
            self._requester = {"username": user["username"], "groups": list(user.get("groups") or [])}
        return self._requester

    def public_key(self, say: Callable[[str], None] = lambda _: None) -> PublicKey:
        """Return the public key to seal with, if this user trusts it. The first key of a cluster becomes trusted.

        :param say: called with a message when a cluster's first key becomes trusted.
        :raises Denied: the cluster's key is not a trusted key.
        """
        from runkeys.client.trusted_keys import TrustedKeys

        key = self.published_key()
        if not TrustedKeys().check(self.server, key):
            say(f"From now on key {key.key_id} of {self.server} is trusted; fingerprint {key.fingerprint}")
        return key

    def published_key(self) -> PublicKey:
        """Return the key that the cluster publishes, whether or not it is trusted."""
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
            raise Unreachable(f"{where} holds no key yet; the operator creates one when it starts")
        try:
            return PublicKey.parse(data[_CURRENT_KEY])
        except SealError as error:
            raise Invalid(f"{where}: {error}") from None

    def may(self, verb: str, resource: str, *, name: str = "", group: str = "runkeys.dev") -> bool:
        """Return whether this user has a right in the namespace. ``resource`` may have a subresource: ``pods/log``."""
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
        """Return all SecretBindings of the namespace that this version can read."""
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
            raise TimedOut(f"run {name} has not finished yet; see: {shell('runkeys', 'status', name)}")
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
        """Return the run after its next change, at most a second later: a pod may start without a change of the run."""
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
