"""Vault and OpenBao: logins by `jwt` and `kubernetes`, and every engine whose secrets are read by a path."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from runkeys._text.store_answers import fields_of
from runkeys.api.store import JWT, VaultStore
from runkeys_operator.stores.https import Https, Reply
from runkeys_operator.stores.provider import (
    Answer,
    Failure,
    Identity,
    Lease,
    Pending,
    Revoked,
    Session,
    StoreError,
)

_NO_TOKEN = "e30.e30.AA"
"""A JWT of nobody: a login with it tells whether the role exists."""

_TOKENLIKE = re.compile(r"[A-Za-z0-9+=_.-]{24,}")
_LONGEST = 200

_PATIENCE = 2.0
"""Seconds that a store may take to delete a credential. Then it is asked again later."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25

_RIGHTS = (
    "the revoker's role may not do that; its policy needs update on auth/token/revoke-accessor,"
    " auth/token/lookup-accessor and sys/leases/lookup"
)


class Vault:
    """One server."""

    def __init__(self, https: Https, spec: VaultStore) -> None:
        self._https = https
        self._spec = spec

    async def open(self, identity: Identity) -> Session:
        """Log in as the pod's service account."""
        reply = await self._login(identity.role, identity.token)
        if reply.status != 200:
            self._raise_if_away(reply)
            raise StoreError(Failure.LOGIN, self._login_refused(reply, identity))
        found = reply.body.get("auth")
        auth: Mapping[str, Any] = found if isinstance(found, dict) else {}
        token, handle, seconds = auth.get("client_token"), auth.get("accessor"), auth.get("lease_duration")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise StoreError(Failure.UNFIT, f"the login at auth/{self._mount} gave no token")
        if not isinstance(handle, str) or not handle or not isinstance(seconds, int):
            raise StoreError(
                Failure.LOGIN,
                f"role {identity.role} of auth/{self._mount} gives batch tokens, which cannot be revoked; set its"
                " token_type to service",
            )
        return Session(handle, seconds, token)

    async def read(self, session: Session, path: str, *, leased: bool = False) -> Answer:
        """Read a path with the session's token. No text of the store's answer is shown: it may hold a value."""
        where = quote(path, safe="/@:+=,~!$&'()*;")
        reply = await self._ask("GET", where, token=session.token, once=leased)
        if reply.status == 403:
            raise StoreError(Failure.FORBIDDEN, "")
        if reply.status == 404:
            raise StoreError(Failure.NOT_FOUND, _hint(reply))
        if reply.status != 200:
            self._raise_if_away(reply)
            raise StoreError(Failure.UNFIT, f"answered {reply.status}")
        data = reply.body.get("data")
        if not isinstance(data, dict):
            raise StoreError(Failure.UNFIT, "answered without data")
        lease_id, seconds = reply.body.get("lease_id"), reply.body.get("lease_duration")
        has_one = isinstance(lease_id, str) and bool(lease_id) and isinstance(seconds, int)
        return Answer(fields_of(data), Lease(str(lease_id), int(seconds or 0)) if has_one else None)

    async def close(self, session: Session) -> Revoked | Pending:
        """Revoke the session's token, which takes its leases with it."""
        try:
            reply = await self._ask("POST", "auth/token/revoke-self", token=session.token)
        except StoreError as error:
            return Pending(str(error))
        if reply.status in (200, 204):
            return Revoked()
        # The token is not known any more, or it may not revoke itself, and then nothing tells which.
        hint = "; its role needs the policy default, or update on auth/token/revoke-self"
        return Pending(f"answered {reply.status}{hint if reply.status == 403 else ''}")

    async def renew(self, session: Session, seconds: int) -> int:
        """Renew the session's token, on which the life of its leases depends."""
        reply = await self._ask(
            "POST", "auth/token/renew-self", token=session.token, body={"increment": f"{seconds}s"}
        )
        if reply.status == 403:
            raise StoreError(
                Failure.LOGIN,
                "the role's tokens may not renew themselves; its role needs the policy default, or update on"
                " auth/token/renew-self",
            )
        self._raise_if_away(reply)
        found = reply.body.get("auth")
        granted = found.get("lease_duration") if isinstance(found, dict) else None
        if reply.status == 200 and isinstance(granted, int):
            return granted
        if reply.status == 400:  # its tokens are not renewable
            return session.seconds
        raise StoreError(Failure.UNFIT, f"the renewal of the login was answered with {reply.status}")

    async def revoke(self, by: Session, handle: str, leases: Sequence[str] | None) -> Revoked | Pending:
        """Revoke by accessor, then look each lease up until it is not known.

        That the store accepts the request proves nothing: it answers so, too, while the database is away in which the
        credential is to be deleted.
        """
        reply = await self._ask(
            "POST", "auth/token/revoke-accessor", token=by.token, body={"accessor": handle}
        )
        if reply.status == 403:
            raise StoreError(Failure.FORBIDDEN, _RIGHTS)
        self._raise_if_away(reply)
        if reply.status not in (200, 204):
            return Pending(f"{self._spec.address} answers {reply.status}")
        until = time.monotonic() + _PATIENCE
        if leases is None:
            return await self._gone(by, "auth/token/lookup-accessor", {"accessor": handle}, until)
        for lease in leases:
            found = await self._gone(by, "sys/leases/lookup", {"lease_id": lease}, until)
            if isinstance(found, Pending):
                return found
        return Revoked()

    async def _gone(self, by: Session, path: str, body: dict[str, Any], until: float) -> Revoked | Pending:
        pause = _FIRST_PAUSE
        while True:
            reply = await self._ask("POST", path, token=by.token, body=body)
            if reply.status in (400, 403, 404) and _unknown(reply):
                return Revoked()
            if reply.status == 403:
                raise StoreError(Failure.FORBIDDEN, _RIGHTS)
            self._raise_if_away(reply)
            if reply.status != 200:
                return Pending(f"{self._spec.address} answers {reply.status} for {path}")
            if time.monotonic() >= until:
                return Pending(f"{self._spec.address} accepted the revocation and still has it")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def check(self, role: str | None = None) -> None:
        """Whether it answers, is unsealed, and knows the role."""
        # Standbys forward what they are asked: they count as there.
        reply = await self._ask("GET", "sys/health?standbyok=true&perfstandbyok=true")
        if reply.status != 200:
            self._raise_if_away(reply)
            raise StoreError(Failure.AWAY, f"{self._spec.address} answers {reply.status} for its health")
        if role is None:
            return
        reply = await self._login(role, _NO_TOKEN)
        self._raise_if_away(reply)
        text = _errors(reply)
        if reply.status in (400, 403) and "role" in text and "not be found" in text:
            raise StoreError(
                Failure.LOGIN, f"auth/{self._mount} has no role {role}; create it, or name another"
            )
        # Of a token like this one a jwt mount says that it cannot be read; without a mount nobody may ask.
        if reply.status == 404 or (reply.status == 403 and self._spec.auth.method == JWT):
            raise StoreError(Failure.LOGIN, self._no_mount)

    @property
    def _mount(self) -> str:
        return self._spec.auth.mount

    @property
    def _no_mount(self) -> str:
        return (
            f"no auth method is enabled at auth/{self._mount}; enable {self._spec.auth.method} there, or change"
            " spec.vault.auth.mount of the SecretStore"
        )

    async def _login(self, role: str, token: str) -> Reply:
        path = f"auth/{quote(self._mount)}/login"
        return await self._ask("POST", path, body={"role": role, "jwt": token})

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: dict[str, Any] | None = None,
        once: bool = False,
    ) -> Reply:
        headers = {"X-Vault-Token": token} if token else {}
        if self._spec.namespace is not None:
            headers["X-Vault-Namespace"] = self._spec.namespace
        return await self._https.ask(
            method,
            self._spec.address,
            path,
            ca_bundle=self._spec.ca_bundle,
            headers=headers,
            body=body,
            once=once,
        )

    def _raise_if_away(self, reply: Reply) -> None:
        address, status = self._spec.address, reply.status
        if status == 503 or "sealed" in _errors(reply):
            raise StoreError(Failure.AWAY, f"{address} is sealed; unseal it")
        if status == 501:
            raise StoreError(Failure.AWAY, f"{address} is not initialized")
        if status == 429 or status >= 500:
            raise StoreError(Failure.AWAY, f"{address} answers {status}")

    def _login_refused(self, reply: Reply, identity: Identity) -> str:
        auth, text = self._spec.auth, _errors(reply)
        where = f"role {identity.role} of auth/{auth.mount}"
        if reply.status == 404:
            return self._no_mount
        if "audience" in text:
            return (
                f"{where} does not accept audience {auth.audience!r}; spec.vault.auth.audience of the SecretStore and"
                f" the role's {'bound_audiences' if auth.method == 'jwt' else 'audience'} must be the same"
            )
        said = _safe(text.replace(identity.token, "…"))
        hint = f", or no auth method is enabled at auth/{auth.mount}" if reply.status == 403 else ""
        return f"{where} refused the login ({reply.status}{f': {said}' if said else ''}){hint}"


def _errors(reply: Reply) -> str:
    found = reply.body.get("errors")
    return " ".join(item for item in found if isinstance(item, str)) if isinstance(found, list) else ""


def _unknown(reply: Reply) -> bool:
    """Whether the store says that it has no such accessor or lease, and not something else of the question."""
    return any(word in _errors(reply) for word in ("invalid accessor", "invalid lease"))


def _hint(reply: Reply) -> str:
    warnings = reply.body.get("warnings")
    versioned = isinstance(warnings, list) and any("versioned K/V" in str(item) for item in warnings)
    return "the engine is KV of version 2, whose paths have data/ after the mount" if versioned else ""


def _safe(text: str) -> str:
    """What a store says of a login, on one line, without anything that could be a token."""
    line = " ".join(_TOKENLIKE.sub("…", "".join(c if c.isprintable() else " " for c in text)).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
