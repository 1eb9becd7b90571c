"""The operator in end-to-end tests: a separate process, with exactly the rights that the chart gives it."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from runkeys.policies import Account
from runkeys.policies.operator import LABEL_RUNS
from runkeys_operator.checks.admission import SETTLES
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import PATIENCE, ApiError, KubeClient
from testing.cluster.resources import by_plural

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "runkeys"
RELEASE = "runkeys"
_STOP_SECONDS = 60


def install_crds(cluster: Cluster) -> None:
    """Make the kinds known to the cluster; several workers may do so at once."""
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        crd = yaml.safe_load(path.read_text())
        cluster.client.apply(crd)
        wait_established(cluster, crd["metadata"]["name"])


def wait_established(cluster: Cluster, *names: str) -> None:
    """Wait until the API server serves the kinds that these definitions make.

    ``kubectl wait`` ends with an error where a definition has no conditions yet.
    """
    for name in names:
        cluster.client.wait_for("customresourcedefinitions", name, None, _established)


def _established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(item["type"] == "Established" and item["status"] == "True" for item in conditions)


_ADMISSION = "admissionregistration.k8s.io/v1"


@cache
def _rendered(
    helm: str, sets: tuple[str, ...], namespace: str, *, mutating: bool = True
) -> list[dict[str, Any]]:
    arguments = [part for item in sets for part in ("--set", item)]
    if mutating:
        arguments += ["--api-versions", f"{_ADMISSION}/MutatingAdmissionPolicy"]
    command = [helm, "template", RELEASE, str(CHART), "--namespace", namespace, "--no-hooks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # In C: the policies are long, and every test reads them.
    return [item for item in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if item]


def fills_in(client: KubeClient) -> bool:
    """Whether the API server has policies that fill in who creates a run: since Kubernetes 1.36."""
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

    What of it belongs to the whole cluster is removed with the namespace, see ``remove_rights``.

    :param sources: Secrets that each namespace lets the operator read.
    :param others: further namespaces that it serves.
    :param policies: False where nothing is to be made anyway: without them an operator makes nothing.
    :param sets: further values of the chart.
    :return: name of the service account.
    """
    from testing.cluster import build

    # Runs are in the operator's own namespace here, which it has to be told.
    cluster.client.patch("namespaces", namespace, None, {"metadata": {"labels": {LABEL_RUNS: "allowed"}}})
    served = (namespace, *others)
    values = [f"watchNamespaces={{{','.join(served)}}}", "installRoles=false", *sets]
    values += [] if policies else ["installPolicies=false"]
    for index, name in enumerate(served if sources else ()):
        values.append(f"sources[{index}].namespace={name}")
        values.append(f"sources[{index}].secretNames={{{','.join(sources)}}}")
    account = ""
    helm, mutating = str(build.program("helm")), fills_in(cluster.client)
    for manifest in _rendered(helm, tuple(values), namespace, mutating=mutating):
        if manifest["kind"] in ("Deployment", "PodDisruptionBudget", "CustomResourceDefinition"):
            continue
        if manifest["kind"] == "ServiceAccount":
            account = manifest["metadata"]["name"]
        if "namespace" not in manifest["metadata"]:
            labels = {**manifest["metadata"]["labels"], _OF_NAMESPACE: namespace}
            manifest["metadata"]["labels"] = labels
        cluster.client.apply(manifest)
    if policies:
        wait_in_force(cluster, namespace)
    return account


def wait_in_force(cluster: Cluster, namespace: str) -> None:
    """Wait until the API server goes by the policies that were just made for a namespace: it looks each second."""
    metadata = {"name": "rk-in-force", "namespace": namespace}
    run = _probe(namespace)
    if not fills_in(cluster.client):
        run["spec"]["requester"] = requester_of(cluster.client)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}

    def in_force() -> bool:
        # The last of those that refuse, and the one that fills in; that one needs the kind to be known a while.
        try:
            return not is_refused(cluster.client, run) and is_refused(cluster.client, secret)
        except ApiError as error:
            if error.status != 503:
                raise
            return False

    wait_until(f"the policies for {namespace} to be in force", in_force)
    wait_believed(cluster, namespace)


def wait_not_filled_in(cluster: Cluster, namespace: str) -> None:
    """Wait until the API server no longer fills in who creates a run."""
    wait_until("no requester to be filled in", lambda: is_refused(cluster.client, _probe(namespace)), 60)


def _probe(namespace: str) -> dict[str, Any]:
    metadata = {"name": "rk-in-force", "namespace": namespace}
    spec: dict[str, Any] = {"tasks": [{"name": "t", "template": {}}]}
    return {"apiVersion": "runkeys.dev/v1alpha1", "kind": "WorkflowRun", "metadata": metadata, "spec": spec}


def installed_policies(cluster: Cluster, namespace: str) -> list[tuple[str, dict[str, Any]]]:
    """The policies and bindings of the operator that lives in a namespace, each with its kind."""
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
    """Wait until an operator believes what is made from now on: its policies are there for long enough."""
    made = [
        datetime.fromisoformat(found["metadata"]["creationTimestamp"])
        for _, found in installed_policies(cluster, namespace)
    ]
    wait_until(
        f"what is made in {namespace} to be believed", lambda: datetime.now(UTC) >= max(made) + SETTLES
    )


def requester_of(client: KubeClient) -> dict[str, Any]:
    """Who the API server takes a client for, as ``spec.requester``."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = client.request("POST", f"/apis/{review['apiVersion']}/selfsubjectreviews", body=review)
    user = answer["status"]["userInfo"]
    return {"username": user["username"], "groups": user["groups"]}


def is_refused(client: KubeClient, manifest: dict[str, Any]) -> bool:
    """Whether a policy forbids to create it; a run that is not filled in is refused as well."""
    try:
        made = client.create(manifest, dryRun="All")
    except ApiError as error:
        if "ValidatingAdmissionPolicy" in error.message:
            return True
        raise
    return made["kind"] == "WorkflowRun" and "requester" not in made["spec"]


def settle_policies(cluster: Cluster, namespace: str) -> None:
    """Wait until the API server goes by the validating policies as they are now: a marker that is made last is seen."""
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
    """One operator process; may be killed and started again, as a cluster would.

    :ivar identity: name of the pod that it stands for.
    :ivar credential: what the audit log calls the token that it has.
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
        self.command = [
            sys.executable,
            "-m",
            "runkeys_operator",
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
        self._process: subprocess.Popen[bytes] | None = None
        self._printed_before = 0

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; returns at once."""
        assert not self.running
        self._printed_before = len(self.text())
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "operator"), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd="/"
            )

    def kill(self) -> None:
        """End it at once, as a node that loses power does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        assert self._process is not None
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP_SECONDS)

    def pause(self) -> None:
        """Freeze it (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_serving(self, timeout: float = PATIENCE) -> None:
        """Wait until this process, not one before it, says that it serves its namespace."""
        self.wait_says("serving", timeout)

    def wait_says(self, words: str, timeout: float = PATIENCE) -> None:
        """Wait until this process, not one before it, printed these words."""
        until = time.monotonic() + timeout
        while words not in self.text()[self._printed_before :]:
            if not self.running or time.monotonic() > until:
                raise AssertionError(f"{self.identity} of {self.namespace}: no {words!r}:\n{self.text()}")
            time.sleep(0.05)

    def text(self) -> str:
        """All of its output."""
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
    """An operator for ``namespace`` with the token of ``account``; not started yet, ended afterwards.

    :param server: a proxy's URL instead of the API server's.
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
