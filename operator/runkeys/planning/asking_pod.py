"""Pods of any engine that ask for secrets themselves: what they ask for, and what is in the way. Pure.

Such a pod has the label ``runkeys.dev/secrets: ask``. The admission policies (:mod:`runkeys.policies.asking`) put
what it asks for, and who created it, into its spec, which nobody can change. So the spec is all that is trusted here:
labels and annotations of a pod can be changed later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runkeys import sealing
from runkeys.api import SecretBinding
from runkeys.api.binding import SEALED
from runkeys.names import (
    ASK,
    ASK_SEALED,
    RECIPIENT_VOLUME,
    SIGNER,
    STAMP_ASKED,
    STAMP_CONTAINERS,
    STAMP_CREATED_BY,
    STAMP_SEALED,
    UNSEALER,
    secret_variable,
)
from runkeys.planning.access import PodSubject, pod_denial
from runkeys.planning.bindings import Bindings
from runkeys.planning.observation import PodView
from runkeys.planning.pod_template import images
from runkeys.planning.readers import readers
from runkeys.planning.refusal import Reason, Refusal, listed
from runkeys.planning.requirements import PodIdentity, SealedValue, SecretReference, reference_to
from runkeys.planning.templates import template_of

MOST_BINDINGS, MOST_ENTRIES, LONGEST_ASK = 8, 32, 8192
"""Limits on what one pod can ask for: SecretBindings, entries, and characters of the annotation."""

MOST_PARAMETERS, LONGEST_SEALED = 8, 32768
"""Limits on what one pod can bring along sealed: parameters, and characters of that annotation."""

FIELD = f"metadata.annotations[{ASK}]"
SEALED_FIELD = f"metadata.annotations[{ASK_SEALED}]"

BINDING_NAME = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
ENTRY_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?"
VARIABLE_NAME = "[A-Za-z_][A-Za-z0-9_]{0,127}"
FILE_NAME = "[A-Za-z0-9_]([-A-Za-z0-9_.]{0,125}[A-Za-z0-9_])?"
GRAMMAR = f"^{BINDING_NAME}/{ENTRY_NAME}(={VARIABLE_NAME}|@{FILE_NAME})?$"
"""Of one thing that is asked for: ``binding/entry``, ``binding/entry=VARIABLE`` or ``binding/entry@file``."""

SEALED_GRAMMAR = f"^({VARIABLE_NAME}|@{FILE_NAME})=rk1[.][0-9a-f]{{16}}[.][A-Za-z0-9_-]+$"
"""Of one sealed parameter: ``VARIABLE=rk1.…`` or ``@file=rk1.…``."""

_GRAMMAR = re.compile(GRAMMAR.replace("$", "\\Z"))
_SEALED_GRAMMAR = re.compile(SEALED_GRAMMAR.replace("$", "\\Z"))


@dataclass(frozen=True)
class Asked:
    """One thing that a pod asks for. It is carried by a variable or by a file, never by both."""

    binding: str
    entry: str
    variable: str
    file: str


@dataclass(frozen=True)
class Parameter:
    """A sealed value that a pod brings along. It is carried by a variable or by a file, never by both."""

    variable: str
    file: str
    text: str


@dataclass(frozen=True)
class AskingPod:
    """A pod whose spec asks Runkeys' signer for a certificate, and belongs to no run.

    :ivar asked: None if what it asks for cannot be read, as in a pod that admission has not seen.
    :ivar parameters: sealed values that it brings along.
    :ivar containers: names of those that get the secrets.
    :ivar again: its containers start again when they end, or when its node does: then they need the values again.
    :ivar readers: names of the containers that would come by the values.
    :ivar opened_at: when its unseal container ended well, most recently; None if it has not.
    """

    view: PodView
    namespace: str
    created: datetime
    asked: tuple[Asked, ...] | None
    parameters: tuple[Parameter, ...]
    containers: tuple[str, ...]
    subject: PodSubject
    again: bool
    readers: frozenset[str]
    opened_at: datetime | None

    @property
    def opened(self) -> bool:
        """Whether it has unsealed its values."""
        return self.opened_at is not None

    @property
    def identity(self) -> PodIdentity:
        """Who reads values for it in a store."""
        return PodIdentity(self.namespace, self.view.service_account, self.view.name, self.view.uid)

    @property
    def bindings(self) -> tuple[str, ...]:
        """Names of the SecretBindings that it asks for, each once."""
        return tuple(dict.fromkeys(item.binding for item in self.asked or ()))


def parse_asked(text: str) -> tuple[Asked, ...] | None:
    """What an annotation asks for; None if it does not follow the grammar."""
    found: list[Asked] = []
    for part in text[: LONGEST_ASK + 1].split(","):
        item = part.strip(" \t\n\r")
        if not _GRAMMAR.match(item):
            return None
        place, at, file = item.partition("@")
        place, _, variable = place.partition("=")
        binding, _, entry = place.partition("/")
        if not at and not variable:
            variable = secret_variable(entry)
        found.append(Asked(binding, entry, variable, file))
    carriers = [item.variable or f"@{item.file}" for item in found]
    if len(found) > MOST_ENTRIES or len(text) > LONGEST_ASK or len(set(carriers)) != len(carriers):
        return None
    return tuple(found) if len({item.binding for item in found}) <= MOST_BINDINGS else None


def parse_sealed(text: str) -> tuple[Parameter, ...] | None:
    """The sealed parameters of an annotation; None if it does not follow the grammar."""
    if not text.strip(" \t\n\r"):
        return ()
    items = [part.strip(" \t\n\r") for part in text[: LONGEST_SEALED + 1].split(",")]
    if len(text) > LONGEST_SEALED or len(items) > MOST_PARAMETERS:
        return None
    if not all(_SEALED_GRAMMAR.match(item) for item in items):
        return None
    parts = [item.partition("=") for item in items]
    return tuple(
        Parameter("" if name[0] == "@" else name, name[1:] if name[0] == "@" else "", sealed)
        for name, _, sealed in parts
    )


def parse_ask(asked: str, sealed: str) -> tuple[tuple[Asked, ...], tuple[Parameter, ...]] | None:
    """What a pod asks for, and what it brings along; None if that cannot be read."""
    parameters = parse_sealed(sealed)
    entries = () if parameters and not asked.strip(" \t\n\r") else parse_asked(asked)
    if entries is None or parameters is None:
        return None
    carriers = [item.variable or f"@{item.file}" for item in entries]
    carriers += [item.variable or f"@{item.file}" for item in parameters]
    return (entries, parameters) if len(set(carriers)) == len(carriers) else None


def asking_pod(raw: Mapping[str, Any]) -> AskingPod | None:
    """Read a pod as the API server sends it; None if it does not ask Runkeys' signer for a certificate."""
    metadata, spec = raw["metadata"], raw["spec"]
    stamps = [
        source["podCertificate"].get("userAnnotations") or {}
        for volume in spec.get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
        if (source.get("podCertificate") or {}).get("signerName") == SIGNER
    ]
    if not stamps:
        return None
    stamp: Mapping[str, str] = stamps[0] if len(stamps) == 1 else {}
    view = PodView.parse(raw)
    read = parse_ask(stamp.get(STAMP_ASKED, ""), stamp.get(STAMP_SEALED, ""))
    owner = next((item for item in metadata.get("ownerReferences") or [] if item.get("controller")), None)
    return AskingPod(
        view=view,
        namespace=metadata["namespace"],
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        asked=read[0] if read is not None else None,
        parameters=read[1] if read is not None else (),
        containers=tuple(name for name in stamp.get(STAMP_CONTAINERS, "").split(",") if name),
        subject=PodSubject(
            labels=metadata.get("labels") or {},
            service_account=view.service_account,
            images=[
                *images({"spec": {**spec, "initContainers": _without_unsealer(spec)}}),
                *(item.get("image", "") for item in spec.get("ephemeralContainers") or []),
            ],
            created_by=stamp.get(STAMP_CREATED_BY, ""),
            owner=(owner["apiVersion"].rpartition("/")[0], owner["kind"]) if owner is not None else None,
        ),
        again=spec.get("restartPolicy", "Always") != "Never",
        readers=frozenset(readers(spec)),
        opened_at=next(
            (item.ended_at for item in view.containers if item.name == UNSEALER and item.exit_code == 0), None
        ),
    )


def _without_unsealer(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Its image is the operator's own: the policies compare it, and no binding needs to list it."""
    return [item for item in spec.get("initContainers") or [] if item.get("name") != UNSEALER]


def shape_refusal(pod: AskingPod) -> Refusal | None:
    """Why the pod gets nothing, ever: what is wrong lies in its spec, which cannot be changed."""
    if pod.asked is None or not pod.containers or not pod.subject.created_by:
        return _final(
            f"the spec does not say what the pod asks for; leave the volume {RECIPIENT_VOLUME} out, set the label and"
            f" the annotation {ASK}, and create the pod again"
        )
    others = pod.readers - {UNSEALER} - set(pod.containers)
    if others:
        return _final(
            f"container {min(others)} would read the secrets, which are for {', '.join(pod.containers)}; create the pod"
            " again without that"
        )
    return None


def references_of(pod: AskingPod, bindings: Bindings) -> list[SecretReference] | Refusal:
    """Where the values come from; or what is in the way, which a binding can mend."""
    found: list[SecretReference] = []
    for item in pod.asked or ():
        where = f"{FIELD}.{item.binding}/{item.entry}"
        if item.binding in bindings.unreadable:
            return _open(
                Reason.BINDING_INVALID,
                f"SecretBinding {item.binding} cannot be read: {bindings.unreadable[item.binding]}",
            )
        binding = bindings.found.get(item.binding)
        if binding is None:
            return _open(
                Reason.BINDING_NOT_FOUND,
                f"there is no SecretBinding {item.binding} in namespace {pod.namespace}; create it, and the pod"
                " continues",
            )
        refused = binding_problem(binding, item.entry, pod.subject)
        if refused is not None:
            return refused
        entry = binding.spec.by_name[item.entry]
        reference = reference_to(
            pod.namespace,
            binding,
            entry,
            where,
            variable=item.variable,
            file=item.file,
            sealed=True,
            leases=False,
        )
        if isinstance(reference, Refusal):
            return reference
        found.append(reference)
    for parameter in pod.parameters:
        context = sealing.PodParameter(pod.namespace, pod.subject.service_account or "default")
        found.append(
            SecretReference(
                parameter.variable,
                parameter.file,
                SealedValue(parameter.text, context, at=pod.created),
                "",
                parameter.variable or parameter.file,
                f"{SEALED_FIELD}.{parameter.variable or parameter.file}",
                sealed=True,
            )
        )
    return found


def binding_problem(binding: SecretBinding, entry: str, subject: PodSubject) -> Refusal | None:
    """Why a binding does not give an entry to a pod; None if it does. Its owner can mend it."""
    name, found = binding.metadata.name, binding.entry(entry)
    if found is None:
        return _open(
            Reason.SECRET_NOT_FOUND,
            f"SecretBinding {name} has no entry {entry!r}; it has: {listed(sorted(binding.spec.by_name)) or 'none'}",
        )
    reason = pod_denial(binding, subject)
    if reason is not None:
        return _open(Reason.ACCESS_DENIED, f"{reason}; its owner can admit the pod in spec.access")
    if binding.spec.delivery != SEALED:
        return _open(
            Reason.SEALED_UNAVAILABLE,
            f"SecretBinding {name} has delivery: {binding.spec.delivery}, and a pod that is not of a run can only get"
            f" sealed values; its owner can set delivery: {SEALED}",
        )
    template = template_of(binding, found, FIELD) if found.template is not None else None
    return template if isinstance(template, Refusal) else None


def _final(message: str) -> Refusal:
    return Refusal(Reason.POD_CHANGED, FIELD, message, permanent=True)


def _open(reason: Reason, message: str) -> Refusal:
    return Refusal(reason, FIELD, message, permanent=False)
