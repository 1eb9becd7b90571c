"""Whether a binding's ``access`` admits a pod of a run, and how to allow somebody to use it. Default deny; pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from runkeys.api import GROUP, AccessRule, SecretBinding
from runkeys.naming import SERVICE_ACCOUNT

USE = "use"
"""The verb that lets somebody's runs have the secrets of a binding."""

REVEAL = "reveal"
"""The verb that lets somebody read them back."""


@dataclass(frozen=True)
class Subject:
    """What ``access`` is checked against: a planned pod, and again the pod that was really made."""

    run_labels: Mapping[str, str]
    service_account: str
    images: Sequence[str]
    """Images of all containers: init, main and ephemeral."""
    requester: str
    """Username of whoever made the run; empty if that is not known."""


def denial(binding: SecretBinding, subject: Subject) -> str | None:
    """Why ``binding`` does not admit ``subject``, in words for its owner; None if it does."""
    rules, owner = binding.spec.access, binding.spec.owner
    if owner is not None:
        if owner.username != subject.requester:
            return (
                f"SecretBinding {binding.metadata.name} is the personal binding of {owner.username}, and this run was"
                f" made by {subject.requester or 'nobody who is known'}"
            )
        if not rules:
            return None
    if not rules:
        return f"SecretBinding {binding.metadata.name} has no access rules, so it admits no run; add one to spec.access"
    reasons = []
    for index, rule in enumerate(rules):
        reason = _mismatch(rule, subject)
        if reason is None:
            return None
        reasons.append(f"access[{index}]: {reason}")
    return f"SecretBinding {binding.metadata.name} does not admit this run ({'; '.join(reasons)})"


def _mismatch(rule: AccessRule, subject: Subject) -> str | None:
    if rule.run_selector is None and rule.service_account_names is None and rule.images is None:
        return "the rule is empty"
    if rule.run_selector is not None and not rule.run_selector.matches(dict(subject.run_labels)):
        return "runSelector does not match the run's labels"
    if rule.service_account_names is not None and subject.service_account not in rule.service_account_names:
        return f"service account {subject.service_account} is not in serviceAccountNames"
    if rule.images is not None:
        for image in subject.images:
            if not any(image_matches(pattern, image) for pattern in rule.images):
                return f"image {image} matches no pattern of images"
    return None


def image_matches(pattern: str, image: str) -> bool:
    """Whether ``image`` matches ``pattern``: ``*`` within a path part, ``**`` across, digests exactly.

    Names are compared as they are written in the pod: ``busybox`` and ``docker.io/library/busybox`` differ.
    """
    if "@" in pattern:
        return pattern == image
    return _compiled(pattern).fullmatch(image) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*{1,})", pattern)
    return re.compile(
        "".join(
            re.escape(part) if not part.startswith("*") else ("[^/]*" if part == "*" else ".*")
            for part in parts
        )
    )


RECONCILED = " --dry-run=client -o yaml | kubectl auth reconcile -f -"
"""Ends a `kubectl create` of a role or its binding: one that is there gets what it lacks, and keeps what it has."""


def grant(verb: str, namespace: str, binding: str, subject: str) -> str:
    """The command that allows somebody ``verb`` on a binding; `kubectl create role` takes no verbs of ours.

    :param binding: its name; empty: all of the namespace. :param subject: see :func:`subject_of`.
    """
    name = f"{verb}-{binding}" if binding else f"{verb}-all-bindings"
    named = {"resourceNames": [binding]} if binding else {}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name},
        "rules": [
            {
                "apiGroups": [GROUP],
                "resources": [SecretBinding.CRD.plural],
                **named,
                "verbs": [verb],
            }
        ],
    }
    return (
        f"echo '{json.dumps(role, separators=(',', ':'))}' | kubectl -n {namespace} apply -f - &&"
        f" kubectl -n {namespace} create rolebinding {name} --role={name} {subject}{RECONCILED}"
    )


def subject_of(username: str) -> str:
    """How `kubectl create rolebinding` names a user or service account, as a word of a shell.

    The name is somebody's whom the reader of the message need not trust, and may hold anything.
    """
    if username.startswith(SERVICE_ACCOUNT):
        return f"--serviceaccount={shlex.quote(username.removeprefix(SERVICE_ACCOUNT))}"
    return f"--user={shlex.quote(username)}"
