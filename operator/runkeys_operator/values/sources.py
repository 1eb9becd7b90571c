"""Resolves references to values: reads Secrets that a namespace opted in, unseals sealed values."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import Mapping, Sequence

from runkeys import sealing
from runkeys._text.times import to_seconds
from runkeys._text.words import kubectl, shell
from runkeys.api import SecretKeySelector
from runkeys.planning.access import subject_of
from runkeys.planning.refusal import Reason, Refusal, listed
from runkeys.planning.requirements import SealedValue, SecretReference
from runkeys.sealing import issuer
from runkeys.sealing.parameter import read_parameter
from runkeys_operator.errors import ApiError, Forbidden, NotFound
from runkeys_operator.kube import SECRETS, Kube
from runkeys_operator.values.keys import Keys, KeysError
from runkeys_operator.values.values import Values

MAX_VALUE_BYTES = 120 * 1024
"""Linux starts no process with a variable of more than 128 KiB, name included."""

MAX_ATTEMPT_BYTES = 512 * 1024
"""Limit for all values of an attempt together; a Secret may hold 1 MiB."""


class SourceRefusedError(Exception):
    """A value cannot be read. ``refusal`` says which and what to do; it never holds the value."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Sources:
    """Resolves references to values, each time anew: a value is never kept here."""

    def __init__(self, kube: Kube, keys: Keys) -> None:
        self._kube = kube
        self._keys = keys
        self._username: str | None = None

    async def resolve(self, namespace: str, references: Sequence[SecretReference]) -> Values:
        """The value of each variable and file, by its key in the attempt's Secret.

        :raises SourceRefusedError: for the first one that cannot be read.
        :raises ApiError: if the API server could not be asked.
        """
        names = sorted(
            {item.source.name for item in references if isinstance(item.source, SecretKeySelector)}
        )
        found = dict(
            zip(names, await asyncio.gather(*(self._read(namespace, name) for name in names)), strict=True)
        )
        values: dict[str, bytes] = {}
        # Thousands of references may name the same few sources, each of which may be large and take a while to open.
        had: dict[SealedValue | tuple[str, str], bytes] = {}
        totals: Counter[str] = Counter()
        for reference in references:
            origin = reference.source
            source = origin if isinstance(origin, SealedValue) else (origin.name, origin.key)
            if source not in had:
                had[source] = await self._value(namespace, reference, found)
                await asyncio.sleep(0)  # let other tasks run
            value = values[reference.key] = _fit(reference, had[source])
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

    async def _value(
        self, namespace: str, reference: SecretReference, found: Mapping[str, Mapping[str, str] | ApiError]
    ) -> bytes:
        if isinstance(reference.source, SealedValue):
            return await self._open(reference, reference.source)
        data = found[reference.source.name]
        if isinstance(data, ApiError):
            raise SourceRefusedError(await self._unreadable(namespace, reference, reference.source, data))
        return _value_at(namespace, reference, reference.source, data)

    async def check(self, namespace: str, references: Sequence[SecretReference]) -> Refusal | None:
        """Why some value cannot be read now, or None. Keeps no value."""
        try:
            await self.resolve(namespace, references)
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
