"""Opens, reads and revokes leases of SecretStores, as the service account of the pod that they are for.

Three steps, so that the caller can put the logins on record between the first and the second, and what they created
between the second and the delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from runkeys.api import LeaseStatus, SecretStore
from runkeys.api.common import describe_invalid
from runkeys.planning.refusal import Reason
from runkeys.planning.requirements import PodIdentity, SecretReference, StoreValue, read_by
from runkeys_operator.errors import Forbidden, NotFound
from runkeys_operator.kube import STORES, Kube
from runkeys_operator.stores.provider import (
    Answer,
    Failure,
    Pending,
    Provider,
    Session,
    StoreError,
)
from runkeys_operator.values.stores import Stores, by_login, check_fit, field_of, refusal, refused
from runkeys_operator.values.values import Values

_LONGEST_HANDLE, _LONGEST_ID = 1024, 2048
"""Characters, as a status can hold them."""


@dataclass(frozen=True)
class Login:
    """A login of the pod's, with which nothing was created yet. What it prints shows no token."""

    wanted: tuple[tuple[SecretReference, StoreValue], ...]
    provider: Provider
    session: Session

    @property
    def source(self) -> StoreValue:
        """One of those that it is for: all have its store and role."""
        return self.wanted[0][1]

    def record(self, expires: datetime) -> LeaseStatus:
        """What the status says of it before anything is created."""
        source = self.source
        paths = list(dict.fromkeys(item.path for _, item in self.wanted))
        return LeaseStatus(
            store=source.store,
            role=source.role,
            accessor=self.session.handle,
            paths=paths,
            expires=expires.replace(microsecond=0) + timedelta(seconds=1),
        )


@dataclass(frozen=True)
class Leased:
    """What was created: the values, by the key of their source, and what the status says of them."""

    values: Values
    records: tuple[LeaseStatus, ...]


def key_of(source: StoreValue) -> str:
    """The key of a value with a lease."""
    return "\0".join((source.store, source.role, source.path, source.field))


class Leases:
    """Leases of all stores."""

    def __init__(self, kube: Kube, stores: Stores, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._stores = stores
        self._now = clock

    async def open(self, references: Sequence[SecretReference], pod: PodIdentity) -> list[Login]:
        """Log in once for each store and role. Nothing is created yet.

        :raises SourceRefusedError: a store does not let the pod in, or the operator could not revoke its lease.
        :raises ApiError: if the API server could not be asked.
        """
        logins: list[Login] = []
        try:
            for wanted in by_login(list(read_by(references)), leased=True).values():
                reference, source = wanted[0]
                store, provider = await self._stores.provider(reference, source)
                check_fit(store, wanted)
                await self._stores.revoker.check(reference, store, provider)
                session = await self._stores.open(reference, source, store, provider, pod)
                logins.append(Login(tuple(wanted), provider, session))
                if len(session.handle) > _LONGEST_HANDLE:
                    raise refused(
                        reference, source, StoreError(Failure.UNFIT, "the accessor is too long to be kept")
                    )
        except BaseException:
            await self.close(logins)
            raise
        return logins

    async def close(self, logins: Sequence[Login]) -> None:
        """End logins of which nothing is on record. They end by themselves in a minute if a store does not answer."""
        await asyncio.gather(*(login.provider.close(login.session) for login in logins))

    async def read(self, logins: Sequence[Login], seconds: int) -> Leased:
        """Have the logins live for ``seconds``, and read each path once. Whoever calls has them on record.

        :raises SourceRefusedError: a store does not give it, or not for long enough.
        """
        values: dict[str, bytes] = {}
        records: list[LeaseStatus] = []
        for login in logins:
            reference, source = login.wanted[0]
            asked = self._now()
            try:
                granted = await login.provider.renew(login.session, seconds)
            except StoreError as error:
                raise refused(reference, source, error) from None
            if granted < seconds:
                raise refusal(reference, Reason.LEASE_TOO_SHORT, _role_too_short(source, granted, seconds))
            answers: dict[str, Answer] = {}
            for one, place in login.wanted:
                if place.path not in answers:
                    answers[place.path] = await self._answer(one, place, login, seconds)
                values[key_of(place)] = field_of(one, place, answers[place.path])
            found = [answer.lease for answer in answers.values() if answer.lease is not None]
            ends = asked + timedelta(seconds=max(min(granted, lease.seconds) for lease in found))
            record = login.record(ends)
            records.append(record.model_copy(update={"ids": [lease.id for lease in found]}))
        return Leased(Values(values), tuple(records))

    async def _answer(
        self, reference: SecretReference, source: StoreValue, login: Login, seconds: int
    ) -> Answer:
        try:
            answer = await login.provider.read(login.session, source.path, leased=True)
        except StoreError as error:
            raise refused(reference, source, error) from None
        where = f"{reference.what}: path {source.path} of SecretStore {source.store}"
        if answer.lease is None or len(answer.lease.id) > _LONGEST_ID:
            raise refusal(
                reference,
                Reason.SOURCE_UNAVAILABLE,
                f"{where} creates no credential with a lease; name it under value instead of lease",
            )
        if answer.lease.seconds < seconds:
            raise refusal(
                reference,
                Reason.LEASE_TOO_SHORT,
                f"{where} creates a credential for {answer.lease.seconds} s, and the task may run for {seconds} s;"
                " raise the ttl of the engine's role, or lower maxLifetimeSeconds of the binding or"
                " activeDeadlineSeconds of the task",
            )
        return answer

    async def revoke(self, lease: LeaseStatus) -> str:
        """Revoke a lease by what is on record of it, with the operator's own login.

        :return: why the store may still have it; empty: it was seen not to.
        :raises ApiError: if the API server could not be asked.
        """
        try:
            store = SecretStore.parse(await self._kube.get(STORES, None, lease.store))
        except NotFound:
            return "its SecretStore is gone; create it again"
        except Forbidden:
            return "the operator may not read SecretStores (stores.enabled of the chart)"
        except ValidationError as error:
            return f"its SecretStore cannot be read: {describe_invalid(error)}"
        provider = self._stores.of(store)
        found = await self._stores.revoker.revoke(store, provider, lease.accessor, lease.ids)
        return found.why if isinstance(found, Pending) else ""


def _role_too_short(source: StoreValue, granted: int, seconds: int) -> str:
    return (
        f"role {source.role} of SecretStore {source.store} lets a login live for {granted} s, and the task may run for"
        f" {seconds} s; raise token_max_ttl or token_explicit_max_ttl of the role, or lower maxLifetimeSeconds of the"
        " binding or activeDeadlineSeconds of the task"
    )
