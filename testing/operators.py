"""The operator in end-to-end tests: a separate process, with exactly the rights that the chart gives it."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import yaml

from runkeys.policies import Account
from runkeys.policies.operator import LABEL_RUNS
from runkeys_operator.checks.admission import SETTLES
from testing import operator_process
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import PATIENCE, ApiError, KubeClient
from testing.cluster.resources import by_plural

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "runkeys"
RELEASE = "runkeys"
_STOP_SECONDS = 60

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([operator_process.__name__])
# To start one looks at all others, too, and only one may read how a process has ended.
_one_at_a_time = threading.RLock()


def install_crds(cluster: Cluster) -> None:
    """Install the CRDs. Several test workers may do so at once."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        cluster.client.apply(crd)
        wait_established(cluster, crd["metadata"]["name"])


def wait_established(cluster: Cluster, *names: str) -> None:
    """Wait until the API server serves the kinds of these CRDs, and names them to those who ask what there is.

    ``kubectl wait`` fails if a CRD has no conditions yet. kubectl itself goes by discovery, which follows later.
    """
    for name in names:
        crd = cluster.client.wait_for("customresourcedefinitions", name, None, _established)
        wait_until(f"discovery to name {name}", partial(_discovered, cluster.client, crd["spec"]))


def _established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


def _discovered(client: KubeClient, spec: dict[str, Any]) -> bool:
    found = client.accepting(_DISCOVERY).request("GET", "/apis")
    return any(
        group["metadata"]["name"] == spec["group"]
        and any(resource["resource"] == spec["names"]["plural"] for resource in version["resources"])
        for group in found["items"]
        for version in group["versions"]
    )


_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_ADMISSION = "admissionregistration.k8s.io/v1"


@cache
def _rendered(
    helm: str, sets: tuple[str, ...], namespace: str, *, mutating: bool = True
) -> list[dict[str, Any]]:
    arguments = [part for item in sets for part in ("--set", item)]
    if mutating:
        arguments += ["--api-versions", f"{_ADMISSION}/MutatingAdmissionPolicy"]
    command = [helm, "template", RELEASE, str(CHART), "--namespace", namespace, "--no-hooks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    # Use the parser in C: the policies are long, and every test reads them.
    return [item for item in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if item]


def fills_in(client: KubeClient) -> bool:
    """Whether the API server has policies that fill in the requester of a run: since Kubernetes 1.36."""
    known = client.request("GET", f"/apis/{_ADMISSION}")["resources"]
    return any(item["name"] == "mutatingadmissionpolicies" for item in known)


_OF_NAMESPACE = "runkeys.test/namespace"
_CLUSTER_WIDE = (
    "validatingadmissionpolicybindings",
    "validatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "clusterrolebindings",
    "clusterroles",
)


def install_rights(
    cluster: Cluster,
    namespace: str,
    sources: tuple[str, ...] = (),
    others: tuple[str, ...] = (),
    *,
    policies: bool = True,
    sets: tuple[str, ...] = (),
) -> str:
    """Install the chart's objects for an operator that runs in ``namespace`` and serves it, without its Deployment.

    Its cluster-wide objects are removed with the namespace, see ``remove_rights``.

    :param sources: Secrets that each namespace lets the operator read.
    :param others: further namespaces that it serves.
    :param policies: False: do not install the policies. An operator creates nothing without them.
    :param sets: further values of the chart.
    :return: name of the service account.
    """
    from testing.cluster import build

    # Here the runs are in the operator's own namespace, which has to allow them by this label.
    cluster.client.patch("namespaces", namespace, None, {"metadata": {"labels": {LABEL_RUNS: "allowed"}}})
    served = (namespace, *others)
    values = [f"watchNamespaces={{{','.join(served)}}}", "installRoles=false", *sets]
    values += [] if policies else ["installPolicies=false"]
    for index, name in enumerate(served if sources else ()):
        values.append(f"sources[{index}].namespace={name}")
        values.append(f"sources[{index}].secretNames={{{','.join(sources)}}}")
    account = ""
    made: list[dict[str, Any]] = []
    helm, mutating = str(build.program("helm")), fills_in(cluster.client)
    for manifest in _rendered(helm, tuple(values), namespace, mutating=mutating):
        if manifest["kind"] in ("Deployment", "PodDisruptionBudget", "CustomResourceDefinition"):
            continue
        if manifest["kind"] == "ServiceAccount":
            account = manifest["metadata"]["name"]
        if "namespace" not in manifest["metadata"]:
            labels = {**manifest["metadata"]["labels"], _OF_NAMESPACE: namespace}
            manifest["metadata"]["labels"] = labels
        made.append(cluster.client.create(manifest))  # a fifth less work for the API server than to apply it
    if policies:
        wait_in_force(cluster, namespace, [item for item in made if item["apiVersion"] == _ADMISSION])
    return account


def wait_in_force(cluster: Cluster, namespace: str, made: list[dict[str, Any]] | None = None) -> None:
    """Wait until the API server applies the policies that were just created for a namespace: it looks each second.

    And until an operator trusts what is created from now on: they have existed for long enough.

    :param made: these policies, in the order in which they were created; None: all of the operator in the namespace.
    """
    # The API server takes up all that is there at one moment. It may look in the middle of an installation, and takes
    # long to look again if it is busy. So only what was created last shows that all is in force.
    if made is not None and not made[-1]["metadata"]["name"].startswith(_LAST):
        raise AssertionError(f"{made[-1]['metadata']['name']} was created last, but {_LAST} is asked for")
    # First what costs nothing: after that time they are in force, but on a busy machine.
    _wait_for_age(
        namespace, [found for _, found in installed_policies(cluster, namespace)] if made is None else made
    )
    run = _probe(namespace)
    if not fills_in(cluster.client):
        run["spec"]["requester"] = requester_of(cluster.client)

    def in_force() -> bool:
        # The last validating policy, and the mutating one, which works only some time after the CRD exists.
        try:
            return last_is_in_force(cluster.client, namespace) and not is_refused(cluster.client, run)
        except ApiError as error:
            if error.status != 503:
                raise
            return False

    wait_until(f"the policies for {namespace} to be in force", in_force)


_LAST = "runkeys-tokens."


def last_is_in_force(client: KubeClient, namespace: str) -> bool:
    """Whether the policy that is created last is in force: an operator's account gets no token without a pod."""
    # With all rights, so that nothing but the policy is in the way.
    operator = client.as_user(f"system:serviceaccount:{namespace}:{RELEASE}", "system:masters")
    try:
        operator.token(namespace, RELEASE)
    except ApiError as error:
        if f"ValidatingAdmissionPolicy '{_LAST}" in error.message:
            return True
        raise
    return False


def wait_not_filled_in(cluster: Cluster, namespace: str) -> None:
    """Wait until the API server no longer fills in who creates a run."""
    wait_until("no requester to be filled in", lambda: is_refused(cluster.client, _probe(namespace)))


def _probe(namespace: str) -> dict[str, Any]:
    metadata = {"name": "rk-in-force", "namespace": namespace}
    spec: dict[str, Any] = {"tasks": [{"name": "t", "template": {}}]}
    return {"apiVersion": "runkeys.dev/v1alpha1", "kind": "WorkflowRun", "metadata": metadata, "spec": spec}


def installed_policies(cluster: Cluster, namespace: str) -> list[tuple[str, dict[str, Any]]]:
    """Return kind and object of the policies and policy bindings of the operator in this namespace."""
    mine = f".{Account.service_account(namespace, 'runkeys').suffix}"
    kinds = ["Validating", "Mutating"] if fills_in(cluster.client) else ["Validating"]
    return [
        (f"{kind}AdmissionPolicy{end}", found)
        for kind in kinds
        for plural, end in (("admissionpolicies", ""), ("admissionpolicybindings", "Binding"))
        for found in cluster.client.list(f"{kind.lower()}{plural}")
        if found["metadata"]["name"].endswith(mine)
    ]


def wait_believed(cluster: Cluster, namespace: str) -> None:
    """Wait until an operator trusts what is created from now on: its policies have existed for long enough."""
    _wait_for_age(namespace, [found for _, found in installed_policies(cluster, namespace)])


def _wait_for_age(namespace: str, policies: list[dict[str, Any]]) -> None:
    newest = max(datetime.fromisoformat(found["metadata"]["creationTimestamp"]) for found in policies)
    wait_until(f"what is made in {namespace} to be believed", lambda: datetime.now(UTC) >= newest + SETTLES)


def requester_of(client: KubeClient) -> dict[str, Any]:
    """Return the user that the API server sees behind a client, in the form of ``spec.requester``."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = client.request("POST", f"/apis/{review['apiVersion']}/selfsubjectreviews", body=review)
    user = answer["status"]["userInfo"]
    return {"username": user["username"], "groups": user["groups"]}


def is_refused(client: KubeClient, manifest: dict[str, Any]) -> bool:
    """Whether a policy refuses to create the object. A run without requester is refused as well."""
    try:
        made = client.create(manifest, dryRun="All")
    except ApiError as error:
        if "ValidatingAdmissionPolicy" in error.message:
            return True
        raise
    return made["kind"] == "WorkflowRun" and "requester" not in made["spec"]


def settle_policies(cluster: Cluster, namespace: str) -> None:
    """Wait until the API server applies the present validating policies: a marker that is created last takes effect."""
    name = f"settled-{secrets.token_hex(4)}"
    kind, api = "ValidatingAdmissionPolicy", _ADMISSION
    maps = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    spec = {
        "matchConstraints": {"resourceRules": [maps]},
        "validations": [{"expression": f"object.metadata.name != '{name}'"}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    marked = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
    cluster.client.create({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
    cluster.client.create(
        {"apiVersion": api, "kind": f"{kind}Binding", "metadata": {"name": name}, "spec": binding}
    )
    try:
        wait_until("the API server to go by the policies", lambda: is_refused(cluster.client, marked))
    finally:
        cluster.client.delete("validatingadmissionpolicybindings", name)
        cluster.client.delete("validatingadmissionpolicies", name)


def remove_rights(cluster: Cluster, namespace: str) -> None:
    """Delete the objects that ``install_rights`` created for a namespace but not in it."""
    for plural in _CLUSTER_WIDE:
        path, query = by_plural(plural).path(), {"labelSelector": f"{_OF_NAMESPACE}={namespace}"}
        cluster.client.request("DELETE", path, query=query)


class Operator:
    """One operator process. It may be killed and started again, as in a cluster.

    :ivar identity: the name of the pod that it represents.
    :ivar credential: the ID of its token in the audit log.
    :ivar arguments: those of the command line.
    :ivar script: a file that is run instead of the operator, which it changes and then runs itself.
    """

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        log: Path,
        *arguments: str,
        identity: str = "operator",
        credential: str = "",
    ) -> None:
        self.identity = identity
        self.credential = credential
        self.namespace = namespace
        self.log = log
        self.kubeconfig = kubeconfig
        self.connection = ["--operator-namespace", namespace, "--kubeconfig", str(kubeconfig)]
        self.script: Path | None = None
        self.arguments = [
            *self.connection,
            "--namespace",
            namespace,
            "--health-port",
            "0",
            "--log-level",
            "debug",
            "--lease",
            f"{namespace}/{RELEASE}",
            "--identity",
            identity,
            *arguments,
        ]
        self._process: ForkServerProcess | None = None
        self._printed_before = 0

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        with _one_at_a_time:
            return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int:
        """The process ID."""
        assert self._process is not None
        assert self._process.pid is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, without waiting."""
        assert not self.running
        self._printed_before = len(self.text())
        call = (self.script, self.arguments, self.log, dict(os.environ))
        with _one_at_a_time:
            self._process = _processes.Process(target=operator_process.run, args=call, daemon=True)
            self._process.start()

    def kill(self) -> None:
        """Kill it at once, as if its node lost power."""
        process = self._process
        if process is not None:
            with _one_at_a_time:
                if process.is_alive():  # if not, another process may have its ID
                    process.kill()
            self._ended(process)

    def stop(self) -> int:
        """Ask it to end (SIGTERM), wait for that, and return its exit code."""
        process = self._process
        assert process is not None
        with _one_at_a_time:
            if process.is_alive():
                process.terminate()
        return self._ended(process)

    def stop_cleanly(self) -> None:
        """Ask it to end, and wait for that. Raises AssertionError with its output unless its exit code is 0."""
        code = self.stop()
        assert code == 0, f"{self.identity} of {self.namespace}: exit code {code}:\n{self.text()[-6000:]}"

    def _ended(self, process: ForkServerProcess) -> int:
        """Wait for the end of this process: somebody else may start the operator again at once."""

        def ended() -> bool:
            with _one_at_a_time:
                return not process.is_alive()

        wait_until(f"{self.identity} of {self.namespace} to end", ended, _STOP_SECONDS)
        code = process.exitcode
        assert code is not None
        return code

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume it (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_serving(self, timeout: float = PATIENCE) -> None:
        """Wait until this process, not an earlier one, logs that it serves its namespace."""
        self.wait_says("serving", timeout)

    def wait_says(self, words: str, timeout: float = PATIENCE) -> None:
        """Wait until this process, not an earlier one, has printed these words."""
        until = time.monotonic() + timeout
        while words not in self.text()[self._printed_before :]:
            if not self.running or time.monotonic() > until:
                raise AssertionError(f"{self.identity} of {self.namespace}: no {words!r}:\n{self.text()}")
            time.sleep(0.05)

    def text(self) -> str:
        """Return all of its output."""
        return self.log.read_text() if self.log.exists() else ""


def _credential(token: str) -> str:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return f"JTI={claims['jti']}"


@contextmanager
def operator_of(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    *arguments: str,
    account: str,
    server: str | None = None,
    identity: str = "operator",
) -> Iterator[Operator]:
    """Yield an operator for ``namespace`` with the token of ``account``. It is not started yet, and ended afterwards.

    :param server: URL of a proxy instead of the API server.
    """
    token = cluster.client.token(namespace, account)
    files = folder / f"{namespace}-{identity}"
    kubeconfig = cluster.kubeconfig_for(token, files.with_suffix(".kubeconfig"), server=server)
    log = files.with_suffix(".log")
    operator = Operator(
        kubeconfig, namespace, log, *arguments, identity=identity, credential=_credential(token)
    )
    try:
        yield operator
    finally:
        operator.kill()
