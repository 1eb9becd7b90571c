"""Whether a binding's ``access`` admits a pod of a run, and the command that grants its use. Default deny; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache

from runkeys._text.words import kubectl, shell
from runkeys.api import GROUP, AccessRule, SecretBinding, SecretStore
from runkeys.names import SERVICE_ACCOUNT
from runkeys.planning.refusal import shortened

USE = "use"
"""The verb that lets a user's runs have the secrets of a binding."""

REVEAL = "reveal"
"""The verb that lets a user read the secrets of a binding back."""


MAX_IMAGE = 1024
"""In characters. A longer image matches nothing; registry, repository, tag and digest have some 700 at most."""

MAX_PATTERNS = 16 * 1024
"""Limit on the characters of all image patterns of a binding together."""

_MOST_KNOWN = 8192
"""Size of the cache from image to matching rules: more images than the largest run has."""


@dataclass(frozen=True)
class Subject:
    """What ``access`` is checked against: first the planned pod, then the pod that was really created."""

    run_labels: Mapping[str, str]
    service_account: str
    images: Sequence[str]
    """Images of all containers (init, main, ephemeral) and of image volumes."""
    requester: str
    """Username of the requester, who created the run; empty if unknown."""


@dataclass(frozen=True)
class PodSubject:
    """A pod that asks for secrets itself, as it was created."""

    labels: Mapping[str, str]
    service_account: str
    images: Sequence[str]
    """As for a run."""
    created_by: str | None
    """Username of the account that created the pod, as admission recorded it. None in a preview: nobody knows yet."""
    owner: tuple[str, str] | None
    """API group and kind of the object that controls it, as its creator says."""


def denial(binding: SecretBinding, subject: Subject) -> str | None:
    """Why ``binding`` does not admit ``subject``, in words for its owner; None if it does."""
    rules, owner = binding.spec.access, binding.spec.owner
    if owner is not None:
        if owner.username != subject.requester:
            return (
                f"SecretBinding {binding.metadata.name} is the personal binding of {owner.username}, and this"
                f" run was created by {subject.requester or 'an unknown user'}"
            )
        if not rules:
            return None
    return _denial(binding, subject, "run")


def pod_denial(binding: SecretBinding, subject: PodSubject) -> str | None:
    """Why ``binding`` does not admit a pod that asks for secrets itself; None if it does."""
    name, owner = binding.metadata.name, binding.spec.owner
    if owner is not None:
        return (
            f"SecretBinding {name} is the personal binding of {owner.username}, which admits only runs;"
            " use a shared one"
        )
    return _denial(binding, subject, "pod")


def _denial(binding: SecretBinding, subject: Subject | PodSubject, kind: str) -> str | None:
    rules = binding.spec.access
    if not rules:
        found = f"SecretBinding {binding.metadata.name} has no access rules"
        return f"{found}, so it admits no {kind}; add one to spec.access"
    patterns = tuple(tuple(rule.images or ()) for rule in rules)
    if sum(len(pattern) for listed in patterns for pattern in listed) > MAX_PATTERNS:
        return (
            f"SecretBinding {binding.metadata.name} has image patterns of more than {MAX_PATTERNS} characters"
            " in total, which are not evaluated; shorten them, or put the secrets into several bindings"
        )
    matching = {image: _compiled(patterns).rules_for(image) for image in dict.fromkeys(subject.images)}
    reasons = []
    for index, rule in enumerate(rules):
        reason = _mismatch(rule, subject, {image for image, rules in matching.items() if index in rules})
        if reason is None:
            return None
        reasons.append(f"access[{index}]: {reason}")
    return f"SecretBinding {binding.metadata.name} does not admit this {kind} ({'; '.join(reasons)})"


def _mismatch(rule: AccessRule, subject: Subject | PodSubject, matching: AbstractSet[str]) -> str | None:
    """``matching``: the images that a pattern of the rule matches."""
    if (
        rule.run_selector is None
        and rule.service_account_names is None
        and rule.images is None
        and rule.pods is None
    ):
        return "the rule is empty"
    other = _other_pod(rule, subject) if isinstance(subject, PodSubject) else _other_run(rule, subject)
    if other is not None:
        return other
    if rule.service_account_names is not None and subject.service_account not in rule.service_account_names:
        return f"service account {subject.service_account} is not in serviceAccountNames"
    if rule.images is not None:
        for image in subject.images:
            if image not in matching:
                return f"image {shortened(image, 200)} matches no pattern of images"
    return None


def _other_run(rule: AccessRule, subject: Subject) -> str | None:
    """Why the rule is about other runs."""
    if rule.pods is not None:
        return "the rule is for pods that ask for secrets themselves (pods)"
    if rule.run_selector is not None and not rule.run_selector.matches(dict(subject.run_labels)):
        return "runSelector does not match the run's labels"
    return None


def _other_pod(rule: AccessRule, subject: PodSubject) -> str | None:
    """Why the rule is about other pods."""
    pods = rule.pods
    if pods is None:
        return "the rule is for runs (it has no pods)"
    if pods.selector is not None and not pods.selector.matches(dict(subject.labels)):
        return "pods.selector does not match the pod's labels"
    if pods.created_by is not None and subject.created_by not in (None, *pods.created_by):
        return f"{subject.created_by}, which created the pod, is not in pods.createdBy"
    if pods.owned_by is not None and subject.owner not in [
        (item.api_group, item.kind) for item in pods.owned_by
    ]:
        group, kind = subject.owner or ("", "nothing")
        return f"{f'{kind}.{group}' if group else kind}, which controls the pod, is not in pods.ownedBy"
    return None


def image_matches(pattern: str, image: str) -> bool:
    """Whether ``image`` matches ``pattern``: ``*`` within a path part, ``**`` across, digests exactly.

    Names are compared as they are written in the pod: ``busybox`` and ``docker.io/library/busybox`` differ.
    """
    return bool(_compiled(((pattern,),)).rules_for(image))


class _Patterns:
    """Matches an image against all patterns of a binding in one pass, one step for each character of the image.

    It never backtracks, as a regular expression engine would. How far each pattern may
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
        """Indexes of the rules that have a matching pattern; none for an image longer than ``MAX_IMAGE``."""
        if len(image) > MAX_IMAGE:
            return frozenset()
        # A run is planned many times, and runs share images. Keys are hashes because those are small.
        key = hashlib.sha256(image.encode(errors="surrogatepass")).digest()
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._look_through(image)
        return found

    def _look_through(self, image: str) -> frozenset[int]:
        stars = self._within | self._across
        here = self._begin | (self._begin & stars) << 1  # a star may match nothing
        for character in image:
            stays = here & (self._across if character == "/" else stars)
            here = stays | (here & self._characters.get(character, 0)) << 1
            here |= (here & stars) << 1
            if not here:
                break
        return frozenset(index for index, ends in enumerate(self._ends) if here & ends)


def _parts(pattern: str) -> list[str]:
    """Its characters and stars: ``*``, or ``**`` for two and more. A pattern with a digest has no stars."""
    if "@" in pattern:
        return [character if character != "*" else r"\*" for character in pattern]
    return ["**" if part.startswith("**") else part for part in re.findall(r"\*+|[^*]", pattern)]


@lru_cache(maxsize=64)
def _compiled(rules: tuple[tuple[str, ...], ...]) -> _Patterns:
    return _Patterns(rules)


RECONCILED = " --dry-run=client -o yaml | kubectl auth reconcile -f -"
"""Ends a `kubectl create` of a role or its binding: an existing one keeps what it has and gains what it lacks."""


def grant(verb: str, namespace: str, binding: str, subject: str) -> str:
    """The command that grants ``verb`` on a binding; `kubectl create role` does not accept Runkeys' verbs.

    :param binding: its name; empty: all of the namespace. :param subject: see :func:`subject_of`.
    """
    name = role_name(verb, binding)
    return (
        f"{shell('echo', role(verb, binding))} | {kubectl(namespace, 'apply', '-f', '-')} &&"
        f" {kubectl(namespace, 'create', 'rolebinding', name, f'--role={name}')} {subject}{RECONCILED}"
    )


def role(verb: str, binding: str, kind: type[SecretBinding | SecretStore] = SecretBinding) -> str:
    """The Role that allows ``verb`` on a binding (empty: on all of the namespace) or on a store, as JSON."""
    rule: dict[str, list[str]] = {"apiGroups": [GROUP], "resources": [kind.CRD.plural]}
    made = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": role_name(verb, binding, kind)},
        "rules": [{**rule, **({"resourceNames": [binding]} if binding else {}), "verbs": [verb]}],
    }
    return json.dumps(made, separators=(",", ":"), ensure_ascii=False)


def role_name(verb: str, binding: str, kind: type[SecretBinding | SecretStore] = SecretBinding) -> str:
    """Name of that Role."""
    return f"{verb}-{'store-' if kind is SecretStore else ''}{binding or 'all-bindings'}"


def subject_of(username: str) -> str:
    """The `kubectl create rolebinding` flag for a user or service account, quoted for a shell."""
    if username.startswith(SERVICE_ACCOUNT):
        return f"--serviceaccount={shell(username.removeprefix(SERVICE_ACCOUNT))}"
    return f"--user={shell(username)}"
