"""Where values may be, and why. Everything else is a leak."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .canaries import Canary

RUN_SECRET = r"/registry/secrets/[^/]+/rk-[^@]+"
SOURCE_SECRET = r"/registry/secrets/[^/]+/(?!rk-)[^@]+"
OPERATOR = r"system:serviceaccount:[^:]+:runkeys"


@dataclass(frozen=True)
class Allowance:
    """One place for one kind of canary.

    :ivar where: pattern of what holds it, as a piece says it; the whole of it has to match.
    :ivar kind: which canaries.
    """

    place: str
    where: str
    kind: Callable[[Canary], bool]
    reason: str

    def covers(self, place: str, where: str, canary: Canary) -> bool:
        """Whether it allows this canary there."""
        return self.place == place and self.kind(canary) and bool(re.fullmatch(self.where, where))


def handed(canary: Canary) -> bool:
    return canary.handed


def variable(canary: Canary) -> bool:
    return canary.handed and not canary.as_file


def delivered_variable(canary: Canary) -> bool:
    return canary.delivered and not canary.as_file


def delivered_and_live(canary: Canary) -> bool:
    return canary.delivered and canary.live


def source(canary: Canary) -> bool:
    return canary.source


def live(canary: Canary) -> bool:
    return canary.live


def token(canary: Canary) -> bool:
    return canary.token


def sent(canary: Canary) -> bool:
    return canary.sent


_CONTAINERD = (
    r"containerd's files: (containerd/io\.containerd\.metadata\.v1\.bolt/meta\.db|"
    r"containerd/\S+/config\.json)"
)

ETCD, WAL, DB, AUDIT = "etcd: secrets", "etcd's log on disk", "etcd's database on disk", "audit log"
TOKENS = "the operator asks for a token of the pod; only an audit log with bodies of such requests shows it"
HARDENED_AWAY = frozenset((ETCD, WAL, DB, AUDIT))
"""Places where nothing is any more once a cluster is set up as docs/hardening.md says."""

ALLOWED = (
    Allowance(ETCD, rf"{RUN_SECRET}@\d+", handed, "the run's own Secret, while it lived"),
    Allowance(ETCD, rf"{SOURCE_SECRET}@\d+", source, "a Secret that a test made, for a binding to refer to"),
    Allowance(WAL, rf"\S+: {RUN_SECRET}", handed, "the same key, in etcd's log of changes"),
    Allowance(WAL, rf"\S+: {SOURCE_SECRET}", source, "the same key, in etcd's log of changes"),
    Allowance(DB, rf"\S+: {RUN_SECRET}", handed, "the same key, in a page of etcd's database"),
    Allowance(DB, rf"\S+: {SOURCE_SECRET}", source, "the same key, in a page of etcd's database"),
    Allowance(
        AUDIT,
        rf"{OPERATOR} create [^/]+/secrets/rk-\S+ \d+: (requestObject|responseObject)",
        handed,
        "the operator makes the run's Secret; only an audit log with bodies of Secrets shows it",
    ),
    Allowance(
        AUDIT,
        rf"{OPERATOR} get [^/]+/secrets/(?!rk-)\S+ 200: responseObject",
        source,
        "the operator reads a source that the namespace opened to it; only an audit log with bodies shows it",
    ),
    Allowance(
        AUDIT,
        r"runkeys-admin (create|patch) [^/]+/secrets/(?!rk-)\S* 20[01]: (requestObject|responseObject)",
        source,
        "a test makes that source",
    ),
    Allowance(
        AUDIT,
        r"runkeys-admin (get|list) [^/]+/secrets/(rk-\S+)? 200: responseObject",
        handed,
        "a test looks whether the run's Secret is there",
    ),
    Allowance(
        AUDIT,
        rf"{OPERATOR} create [^/]+/serviceaccounts/token/\S+ 201: responseObject",
        token,
        TOKENS,
    ),
    Allowance(
        AUDIT,
        r"system:serviceaccount:kube-system:namespace-controller deletecollection [^/]+/secrets/ 200: responseObject",
        handed,
        "the answer to the deletion of a namespace's Secrets; only an audit log with bodies of Secrets shows it",
    ),
    Allowance(
        AUDIT,
        r"\S+ (create|patch|update) [^/]+/(workflowruns|secretbindings)/\S* 4(03|04|22): requestObject",
        sent,
        "somebody sent it in the clear: the API server refuses it, and its audit log has what was sent",
    ),
    Allowance(
        "log of kube-apiserver",
        r".*failed to update managedFields.*",
        sent,
        "the same, sent as a list or an object where a text belongs: the API server's own error quotes it",
    ),
    Allowance(
        "containerd's files",
        _CONTAINERD,
        variable,
        "variables of a container, in the runtime's own state until its pod is removed; root on the node reads it",
    ),
    Allowance(
        "kubelet's files",
        r"kubelet's files: kubelet/pods/\S+/volumes/kubernetes\.io~(secret|projected)/\S+",
        live,
        "a file that was handed to a pod, on a tmpfs that goes with the pod; root on the node reads it",
    ),
    Allowance(
        "containerd's files",
        _CONTAINERD,
        delivered_variable,
        "variables of a container that was delivered to sealed: there as those from a Secret are",
    ),
    Allowance(
        "kubelet's files",
        r"kubelet's files: kubelet/pods/\S+/volumes/kubernetes\.io~empty-dir/runkeys-\S+",
        delivered_and_live,
        "what was opened in a pod that was delivered to sealed, on a tmpfs that goes with the pod",
    ),
)
