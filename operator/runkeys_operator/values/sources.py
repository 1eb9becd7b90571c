"""Resolves references to values: reads Secrets that a namespace opted in and stores, unseals sealed values."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from runkeys import sealing
from runkeys._text.templates import NotTextError, TooLongError
from runkeys._text.times import to_seconds
from runkeys._text.words import kubectl, shell
from runkeys.api import SecretKeySelector
from runkeys.planning.access import subject_of
from runkeys.planning.leases import leased
from runkeys.planning.refusal import Reason, Refusal, listed
from runkeys.planning.requirements import (
    PodIdentity,
    SealedValue,
    SecretReference,
    StoreValue,
    TemplateValue,
    read_by,
)
from runkeys.sealing import issuer
from runkeys.sealing.parameter import read_parameter
from runkeys_operator.errors import ApiError, Forbidden, NotFound
from runkeys_operator.kube import SECRETS, Kube
from runkeys_operator.values.keys import Keys, KeysError
from runkeys_operator.values.leases import key_of
from runkeys_operator.values.refused import SourceRefusedError
from runkeys_operator.values.stores import Stores
from runkeys_operator.values.values import Values, opened

MAX_VALUE_BYTES = 120 * 1024
"""Linux starts no process with a variable of more than 128 KiB, name included."""

MAX_ATTEMPT_BYTES = 512 * 1024
"""Limit for all values of an attempt together; a Secret may hold 1 MiB."""


_Origin = SealedValue | StoreValue | tuple[str, ...]


class Sources:
    """Resolves references to values, each time anew: a value is never kept here."""

    def __init__(self, kube: Kube, keys: Keys, stores: Stores) -> None:
        self._kube = kube
        self._keys = keys
        self._stores = stores
        self._username: str | None = None

    async def resolve(
        self,
        namespace: str,
        references: Sequence[SecretReference],
        pod: PodIdentity | None,
        lease: Callable[[], Awaitable[Values]] | None = None,
    ) -> Values:
        """The value of each variable and file, by its key in the attempt's Secret.

        :param pod: that the values are for. Without it no store is read.
        :param lease: gives the values that need a lease, by their sources' keys. It is called when all others are read.
        :raises SourceRefusedError: for the first one that cannot be read.
        :raises ApiError: if the API server could not be asked.
        """
        names = sorted(
            {item.source.name for item in read_by(references) if isinstance(item.source, SecretKeySelector)}
        )
        found = dict(
            zip(names, await asyncio.gather(*(self._read(namespace, name) for name in names)), strict=True)
        )
        values: dict[str, bytes] = {}
        # Thousands of references may name the same few entries, each of which may be large and take a while to open.
        had: dict[_Origin, bytes] = {}
        if pod is not None:
            stored = await self._stores.read(list(read_by(references)), pod)
            had |= [*stored.items()]
        if lease is not None:
            for reference in _without(references, _is_leased):
                await self._once(namespace, reference, found, had)
            by_key = opened(await lease())
            had |= {source: by_key[key_of(source)] for _, source in leased(references)}
        totals: Counter[str] = Counter()
        for reference in references:
            value = values[reference.key] = _fit(
                reference, await self._once(namespace, reference, found, had)
            )
            field = reference.field.rsplit("[", 1)[0]
            totals[field] += len(value)
            if totals[field] > MAX_ATTEMPT_BYTES:
                raise SourceRefusedError(
                    Refusal(
                        Reason.VALUE_TOO_LARGE,
                        field,
                        f"the secrets of this task have more than {MAX_ATTEMPT_BYTES} bytes together, the most"
                        " that is possible",
                        permanent=False,
                    )
                )
        _check_sealed(references, values)
        return Values(values)

    async def _once(
        self,
        namespace: str,
        reference: SecretReference,
        found: Mapping[str, Mapping[str, str] | ApiError],
        had: dict[_Origin, bytes],
    ) -> bytes:
        """The value, which ``had`` keeps for others with the same source: a template's too, and its parts'."""
        origin, source = _origin(reference), reference.source
        if origin in had:
            return had[origin]
        if isinstance(source, TemplateValue):
            parts = {}
            for part in source.parts:
                try:
                    parts[part.entry] = await self._once(namespace, part, found, had)
                except SourceRefusedError as error:
                    raise SourceRefusedError(_of_template(reference, error.refusal)) from None
            value = _rendered(reference, source, parts)
        elif isinstance(source, SealedValue):
            value = await self._open(reference, source)
        elif isinstance(source, StoreValue):
            raise SourceRefusedError(_needs_pod(reference, source))
        else:
            value = await self._from_secret(namespace, reference, source, found[source.name])
        had[origin] = value
        await asyncio.sleep(0)  # let other tasks run
        return value

    async def _from_secret(
        self,
        namespace: str,
        reference: SecretReference,
        source: SecretKeySelector,
        data: Mapping[str, str] | ApiError,
    ) -> bytes:
        if isinstance(data, ApiError):
            raise SourceRefusedError(await self._unreadable(namespace, reference, source, data))
        return _value_at(namespace, reference, source, data)

    async def check(self, namespace: str, references: Sequence[SecretReference]) -> Refusal | None:
        """Why some value cannot be read now, or None, as far as that can be said without a pod. Keeps no value."""
        try:
            await self._stores.check(list(read_by(references)))
            await self.resolve(namespace, list(_without(references, _is_stored)), None)
        except SourceRefusedError as error:
            return error.refusal
        return None

    async def _open(self, reference: SecretReference, sealed: SealedValue) -> bytes:
        # A value of the run's own cannot be changed any more; a key that is missing can be restored.
        own = not reference.binding
        try:
            return _current(sealed, await self._keys.open(sealed.text, sealed.context))
        except KeysError as error:
            reason, message, permanent = Reason.UNKNOWN_KEY, str(error), False
        except sealing.UnknownKeyError as error:
            reason, message, permanent = Reason.UNKNOWN_KEY, str(error), False
        except sealing.ContextMismatchError as error:
            reason, message, permanent = (
                Reason.SEAL_CONTEXT_MISMATCH,
                f"{error}{_placed(sealed.context)}",
                own,
            )
        except _ExpiredError as error:
            reason, message, permanent = Reason.SEALED_EXPIRED, str(error), own
        except sealing.SealError as error:
            reason, message, permanent = Reason.SEALED_INVALID, str(error), own
        refusal = Refusal(reason, reference.field, f"{reference.what}: {message}", permanent)
        raise SourceRefusedError(refusal)

    async def _read(self, namespace: str, name: str) -> Mapping[str, str] | ApiError:
        try:
            secret = await self._kube.get(SECRETS, namespace, name)
        except (NotFound, Forbidden) as error:
            return error
        return secret.get("data") or {}

    async def _unreadable(
        self, namespace: str, reference: SecretReference, source: SecretKeySelector, error: ApiError
    ) -> Refusal:
        where = f"Secret {source.name} of SecretBinding {reference.binding}, entry {reference.entry!r}"
        if isinstance(error, NotFound):
            return Refusal(
                Reason.SOURCE_NOT_FOUND,
                reference.field,
                f"{where}: there is no Secret {source.name} in namespace {namespace}; create it, and the run"
                " then continues",
                permanent=False,
            )
        return Refusal(
            Reason.SOURCE_FORBIDDEN,
            reference.field,
            f"{where}: the operator may not read it; opt in with: {await self._grant(namespace, source.name)}",
            permanent=False,
        )

    async def _grant(self, namespace: str, name: str) -> str:
        role = f"runkeys-source-{name}"
        allow = ("create", "role", role, "--verb=get", "--resource=secrets", f"--resource-name={name}")
        bind = kubectl(namespace, "create", "rolebinding", role, f"--role={role}")
        return f"{kubectl(namespace, *allow)} && {bind} {subject_of(await self._who_am_i())}"

    async def _who_am_i(self) -> str:
        if self._username is None:
            answer = await self._kube.who_am_i()
            self._username = str(answer["status"]["userInfo"]["username"])
        return self._username


def _origin(reference: SecretReference) -> _Origin:
    """What two references have in common that have one value."""
    source = reference.source
    if isinstance(source, TemplateValue):
        return ("template", reference.binding, reference.entry)
    return (source.name, source.key) if isinstance(source, SecretKeySelector) else source


def _of_template(reference: SecretReference, refusal: Refusal) -> Refusal:
    """Why a part of a template cannot be read."""
    message = f"{refusal.message} (the template of entry {reference.entry!r} needs it)"
    return replace(refusal, message=message)


def _needs_pod(reference: SecretReference, source: StoreValue) -> Refusal:
    return Refusal(
        Reason.SOURCE_UNAVAILABLE,
        reference.field,
        f"{reference.what} is in SecretStore {source.store}, which is read only for a pod, as its service account; read"
        " it with the store's own client",
        permanent=False,
    )


def _is_stored(reference: SecretReference) -> bool:
    return isinstance(reference.source, StoreValue)


def _is_leased(reference: SecretReference) -> bool:
    return isinstance(reference.source, StoreValue) and reference.source.leased


def _without(
    references: Sequence[SecretReference], what: Callable[[SecretReference], bool]
) -> Iterator[SecretReference]:
    """All but those that ``what`` names: of a template with such parts its other parts."""
    for reference in references:
        parts = list(read_by([reference]))
        here = [part for part in parts if not what(part)]
        if len(here) == len(parts):
            yield reference
        else:
            yield from (replace(part, file=part.entry) for part in here)


def _rendered(reference: SecretReference, source: TemplateValue, parts: Mapping[str, bytes]) -> bytes:
    """The value of a template."""
    try:
        return source.template.render(parts, MAX_ATTEMPT_BYTES)
    except NotTextError as error:
        reason, message = (
            Reason.VALUE_NOT_TEXT,
            f"the value of {error.name!r} is not text, and {{{{ {error.name} | json }}}} takes UTF-8 text; use"
            " | base64",
        )
    except TooLongError:
        reason, message = (
            Reason.VALUE_TOO_LARGE,
            f"the result has more than {MAX_ATTEMPT_BYTES} bytes, the most that the secrets of a task can have; shorten"
            " the template, or split it",
        )
    refusal = Refusal(reason, reference.field, f"template of {reference.what}: {message}", permanent=False)
    raise SourceRefusedError(refusal)


class _ExpiredError(Exception):
    """A sealed parameter was brought too late."""


def _current(sealed: SealedValue, opened: bytes) -> bytes:
    """The value of what was opened; of a parameter without its time."""
    if sealed.at is None:
        return opened
    expires, value = read_parameter(opened)
    if sealed.at >= expires:
        raise _ExpiredError(
            f"expired at {to_seconds(expires)}, and the pod was created at {to_seconds(sealed.at)}; seal it again"
            " (runkeys seal --for-pods) and create the pod again"
        )
    return value


def _value_at(
    namespace: str, reference: SecretReference, source: SecretKeySelector, data: Mapping[str, str]
) -> bytes:
    """The value at the key of a Secret's data."""
    if source.key not in data:
        there = listed(sorted(data)) or "none"
        raise SourceRefusedError(
            Refusal(
                Reason.SOURCE_KEY_MISSING,
                reference.field,
                f"Secret {source.name} in namespace {namespace} has no key {source.key!r}, which entry"
                f" {reference.entry!r} of SecretBinding {reference.binding} names; its keys: {there}",
                permanent=False,
            )
        )
    try:
        return base64.b64decode(data[source.key], validate=True)
    except binascii.Error:
        return b"\0"  # cannot come from an API server; treated as what it is: not text


def _fit(reference: SecretReference, value: bytes) -> bytes:
    """``value``, if a variable can carry it; a file carries anything."""
    if reference.file:
        return value
    own = not reference.binding  # fixed with its run
    if len(value) > MAX_VALUE_BYTES:
        raise SourceRefusedError(
            Refusal(
                Reason.VALUE_TOO_LARGE,
                reference.field,
                f"{reference.what} has {len(value)} bytes; a variable can carry at most {MAX_VALUE_BYTES}; deliver it"
                " as a file (file)",
                permanent=own,
            )
        )
    if b"\0" in value or not _is_utf8(value):
        raise SourceRefusedError(
            Refusal(
                Reason.VALUE_NOT_TEXT,
                reference.field,
                f"{reference.what} is not text: a variable carries UTF-8 without NUL bytes; deliver it as a file"
                " (file), or store it base64-encoded",
                permanent=own,
            )
        )
    return value


def _check_sealed(references: Sequence[SecretReference], values: Mapping[str, bytes]) -> None:
    """Refuse what a certificate, or the kubelet's file of variables, would not carry exactly as it is."""
    for reference in references:
        if not reference.sealed or reference.file:
            continue
        reason = issuer.not_carried(reference.variable, values[reference.key])
        if reason is not None:
            raise SourceRefusedError(
                Refusal(
                    Reason.VALUE_NOT_CARRIED,
                    reference.field,
                    f"{reference.what} {reason}; with delivery: Sealed deliver it as a file (file), or change the"
                    " value",
                    permanent=not reference.binding,
                )
            )
    for task in sorted(
        {item.field.rsplit(".", 1)[0].rpartition("[")[0] for item in references if item.sealed}
    ):
        mine = {
            item.key: values[item.key]
            for item in references
            if item.sealed and item.field.startswith(f"{task}[")
        }
        size = issuer.packed_size(mine)
        if size > issuer.MAX_TASK_BYTES:
            raise SourceRefusedError(
                Refusal(
                    Reason.VALUE_TOO_LARGE,
                    task,
                    f"the secrets of this task have {size} bytes together, and delivery: Sealed carries at most"
                    f" {issuer.MAX_TASK_BYTES}; split the task, or deliver by a Secret",
                    permanent=False,
                )
            )


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _placed(context: sealing.Context) -> str:
    """What people have often overlooked about the place of a value."""
    if isinstance(context, sealing.PersonalEntry):
        return (
            " (a value of a personal binding is sealed for its owner, and what was sealed for a binding's name, as"
            f" earlier versions did, does not open there; its owner sets it again: {_set_again(context)})"
        )
    if isinstance(context, sealing.PodParameter):
        account = ("--service-account", context.service_account)
        return f"; seal it with: {shell('runkeys', 'seal', '--for-pods', '-n', context.namespace, *account)}"
    if not isinstance(context, sealing.BindingEntry):
        return ""
    return (
        " (a strict value is for one name and namespace of its binding, which kustomize's namePrefix, nameSuffix and"
        " namespace change: seal for the names that result, or with scope: Namespace)"
    )


def _set_again(context: sealing.PersonalEntry) -> str:
    # An entry may have any name, and people paste this command.
    ends = ("--",) if context.entry.startswith("-") else ()
    return shell("runkeys", "-n", context.namespace, "secret", "set", *ends, context.entry)
