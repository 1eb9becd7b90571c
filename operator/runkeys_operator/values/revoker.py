"""The operator's own logins at stores, with which it revokes leases. They can read no secret."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runkeys.api import SecretStore
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SecretReference
from runkeys_operator.stores.provider import (
    Failure,
    Identity,
    Pending,
    Provider,
    Revoked,
    Session,
    StoreError,
)
from runkeys_operator.values.refused import SourceRefusedError


def token_file(folder: Path, audience: str) -> Path:
    """Where the operator's own token for an audience is. An audience can have characters that no file name has."""
    return folder / hashlib.sha256(audience.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Login:
    provider: Provider
    session: Session
    until: float


class Revoker:
    """One login at each store, used for as long as the store lets it live."""

    def __init__(self, tokens: Path | None) -> None:
        """``tokens``: folder with the operator's tokens, one for each audience, which Kubernetes renews there."""
        self._tokens = tokens
        self._logins: dict[tuple[str, str], _Login] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __repr__(self) -> str:
        return f"Revoker({len(self._logins)})"

    async def close(self) -> None:
        """End the logins, as far as the stores answer."""
        logins, self._logins = list(self._logins.values()), {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.gather(
                    *(login.provider.close(login.session) for login in logins), return_exceptions=True
                )

    def missing(self, store: SecretStore) -> tuple[Reason, str] | None:
        """Why the operator has no login of its own at a store, as far as that can be said without asking the store."""
        audience, name = store.spec.audience, store.metadata.name
        if store.spec.revoker is None:
            return Reason.LEASES_UNAVAILABLE, (
                f"SecretStore {name} has no spec.vault.revoker, so that the operator could revoke no lease; an"
                " administrator of the cluster can name a role there (docs/stores.md)"
            )
        if self._tokens is None or not token_file(self._tokens, audience).is_file():
            return Reason.LEASES_UNAVAILABLE, (
                f"the operator has no token of its own for audience {audience!r} of SecretStore {name}, so"
                " that it could revoke no lease; the chart gives it one for each of stores.audiences"
            )
        return None

    async def problem(self, store: SecretStore, provider: Provider) -> tuple[Reason, str] | None:
        """Why leases of a store could not be revoked, or None. Logs in if there is no login yet."""
        found = self.missing(store)
        if found is not None:
            return found
        try:
            await self._session(store, provider)
        except StoreError as error:
            reason = (
                Reason.SOURCE_UNAVAILABLE if error.failure is Failure.AWAY else Reason.STORE_LOGIN_REFUSED
            )
            return reason, f"the revoker of SecretStore {store.metadata.name} cannot log in: {error}"
        return None

    async def check(self, reference: SecretReference, store: SecretStore, provider: Provider) -> None:
        """Raise SourceRefusedError if a lease of the store could not be revoked."""
        found = await self.problem(store, provider)
        if found is not None:
            reason, message = found
            raise SourceRefusedError(
                Refusal(reason, reference.field, f"{reference.what}: {message}", permanent=False)
            )

    async def revoke(
        self, store: SecretStore, provider: Provider, handle: str, leases: Sequence[str] | None
    ) -> Revoked | Pending:
        """Revoke what was opened with the login that has this handle.

        If the operator's own login is refused, it has ended, and is replaced once.
        """
        found = self.missing(store)
        if found is not None:
            return Pending(found[1])

        async def ask(session: Session) -> Revoked | Pending:
            return await provider.revoke(session, handle, leases)

        try:
            return await self._as_revoker(store, provider, ask)
        except StoreError as error:
            return Pending(str(error))

    async def _as_revoker(
        self,
        store: SecretStore,
        provider: Provider,
        ask: Callable[[Session], Awaitable[Revoked | Pending]],
    ) -> Revoked | Pending:
        session = await self._session(store, provider)
        try:
            return await ask(session)
        except StoreError as error:
            if error.failure is not Failure.FORBIDDEN:
                raise
        self._forget(store, session)
        return await ask(await self._session(store, provider))

    async def _session(self, store: SecretStore, provider: Provider) -> Session:
        revoker = store.spec.revoker
        role = revoker.role if revoker is not None else ""
        key = (store.metadata.uid, store.spec.model_dump_json(exclude={"namespaces"}))
        async with self._locks[store.metadata.uid]:
            known = self._logins.get(key)
            if known is not None and time.monotonic() < known.until:
                return known.session
            token = self._token(store.spec.audience)
            asked = time.monotonic()
            session = await provider.open(Identity(role, token))
            self._logins = {k: v for k, v in self._logins.items() if k[0] != store.metadata.uid}
            self._logins[key] = _Login(provider, session, asked + session.seconds * 0.8)
            return session

    def _forget(self, store: SecretStore, session: Session) -> None:
        self._logins = {
            key: login
            for key, login in self._logins.items()
            if key[0] != store.metadata.uid or login.session is not session
        }

    def _token(self, audience: str) -> str:
        try:
            return token_file(self._tokens or Path(), audience).read_text().strip()
        except (OSError, ValueError):
            raise StoreError(
                Failure.LOGIN, "the operator's own token cannot be read; restart the operator"
            ) from None
