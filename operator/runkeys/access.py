"""Whether a binding's ``access`` admits a pod of a run, and how to allow somebody to use it. Default deny; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache

from runkeys.api import GROUP, AccessRule, SecretBinding
from runkeys.naming import SERVICE_ACCOUNT
from runkeys.refusal import shortened
from runkeys.words import kubectl, shell

USE = "use"
"""The verb that lets somebody's runs have the secrets of a binding."""

REVEAL = "reveal"
"""The verb that lets somebody read them back."""


MAX_IMAGE = 1024
"""Characters. A longer one matches nothing; a registry, a repository, a tag and a digest have some 700 at most."""

MAX_PATTERNS = 16 * 1024
"""Characters of all image patterns of a binding together."""

_MOST_KNOWN = 8192
"""Images of which it is kept which rules match: more than the largest run has."""


@dataclass(frozen=True)
class Subject:
    """What ``access`` is checked against: a planned pod, and again the pod that was really made."""

    run_labels: Mapping[str, str]
    service_account: str
    images: Sequence[str]
    """Images of all containers: init, main and ephemeral, and those that are mounted as volumes."""
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
    patterns = tuple(tuple(rule.images or ()) for rule in rules)
    if sum(len(pattern) for listed in patterns for pattern in listed) > MAX_PATTERNS:
        return (
            f"SecretBinding {binding.metadata.name} has image patterns of more than {MAX_PATTERNS} characters in all,"
            " which are not looked at; shorten them, or put the secrets into several bindings"
        )
    matching = {image: _compiled(patterns).rules_for(image) for image in dict.fromkeys(subject.images)}
    reasons = []
    for index, rule in enumerate(rules):
        reason = _mismatch(rule, subject, {image for image, rules in matching.items() if index in rules})
        if reason is None:
            return None
        reasons.append(f"access[{index}]: {reason}")
    return f"SecretBinding {binding.metadata.name} does not admit this run ({'; '.join(reasons)})"


def _mismatch(rule: AccessRule, subject: Subject, matching: AbstractSet[str]) -> str | None:
    """``matching``: the images that a pattern of the rule matches."""
    if rule.run_selector is None and rule.service_account_names is None and rule.images is None:
        return "the rule is empty"
    if rule.run_selector is not None and not rule.run_selector.matches(dict(subject.run_labels)):
        return "runSelector does not match the run's labels"
    if rule.service_account_names is not None and subject.service_account not in rule.service_account_names:
        return f"service account {subject.service_account} is not in serviceAccountNames"
    if rule.images is not None:
        for image in subject.images:
            if image not in matching:
                return f"image {shortened(image, 200)} matches no pattern of images"
    return None


def image_matches(pattern: str, image: str) -> bool:
    """Whether ``image`` matches ``pattern``: ``*`` within a path part, ``**`` across, digests exactly.

    Names are compared as they are written in the pod: ``busybox`` and ``docker.io/library/busybox`` differ.
    """
    return bool(_compiled(((pattern,),)).rules_for(image))


class _Patterns:
    """All image patterns of a binding at once, looked through once for an image, a step for each of its characters.

    Nothing is ever tried again from another place, as an engine of regular expressions would. How far each pattern may
    have been followed is a bit of one number: bit 0 of a pattern stands before its first character, the last one
    behind all of them.
    """

    def __init__(self, rules: tuple[tuple[str, ...], ...]) -> None:
        self._begin = self._within = self._across = 0
        self._characters: dict[str, int] = {}
        self._ends: list[int] = []
        self._known: dict[bytes, frozenset[int]] = {}
        bit = 1
        for patterns in rules:
            ends = 0
            for pattern in patterns:
                self._begin |= bit
                for part in _parts(pattern):
                    if part == "*":
                        self._within |= bit
                    elif part == "**":
                        self._across |= bit
                    else:
                        self._characters[part] = self._characters.get(part, 0) | bit
                    bit <<= 1
                ends |= bit
                bit <<= 1
            self._ends.append(ends)

    def rules_for(self, image: str) -> frozenset[int]:
        """The rules of which a pattern matches."""
        if len(image) > MAX_IMAGE:
            return frozenset()
        # A run is planned many times over, and others have the same images. By their hashes, which take no room.
        key = hashlib.sha256(image.encode(errors="surrogatepass")).digest()
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._look_through(image)
        return found

    def _look_through(self, image: str) -> frozenset[int]:
        stars = self._within | self._across
        here = self._begin | (self._begin & stars) << 1  # a star may stand for nothing
        for character in image:
            stays = here & (self._across if character == "/" else stars)
            here = stays | (here & self._characters.get(character, 0)) << 1
            here |= (here & stars) << 1
            if not here:
                break
        return frozenset(index for index, ends in enumerate(self._ends) if here & ends)


def _parts(pattern: str) -> list[str]:
    """Its characters and its stars: ``*``, or ``**`` for two and more. Where a digest is given there are none."""
    if "@" in pattern:
        return [character if character != "*" else r"\*" for character in pattern]
    return ["**" if part.startswith("**") else part for part in re.findall(r"\*+|[^*]", pattern)]


@lru_cache(maxsize=64)
def _compiled(rules: tuple[tuple[str, ...], ...]) -> _Patterns:
    return _Patterns(rules)


RECONCILED = " --dry-run=client -o yaml | kubectl auth reconcile -f -"
"""Ends a `kubectl create` of a role or its binding: one that is there gets what it lacks, and keeps what it has."""


def grant(verb: str, namespace: str, binding: str, subject: str) -> str:
    """The command that allows somebody ``verb`` on a binding; `kubectl create role` takes no verbs of ours.

    :param binding: its name; empty: all of the namespace. :param subject: see :func:`subject_of`.
    """
    name = _role_name(verb, binding)
    return (
        f"{shell('echo', role(verb, binding))} | {kubectl(namespace, 'apply', '-f', '-')} &&"
        f" {kubectl(namespace, 'create', 'rolebinding', name, f'--role={name}')} {subject}{RECONCILED}"
    )


def role(verb: str, binding: str) -> str:
    """The Role that allows ``verb`` on a binding (empty: on all of the namespace), as JSON."""
    rule: dict[str, list[str]] = {"apiGroups": [GROUP], "resources": [SecretBinding.CRD.plural]}
    made = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": _role_name(verb, binding)},
        "rules": [{**rule, **({"resourceNames": [binding]} if binding else {}), "verbs": [verb]}],
    }
    return json.dumps(made, separators=(",", ":"), ensure_ascii=False)


def _role_name(verb: str, binding: str) -> str:
    return f"{verb}-{binding or 'all-bindings'}"


def subject_of(username: str) -> str:
    """How `kubectl create rolebinding` names a user or service account, as a word of a shell."""
    if username.startswith(SERVICE_ACCOUNT):
        return f"--serviceaccount={shell(username.removeprefix(SERVICE_ACCOUNT))}"
    return f"--user={shell(username)}"
