"""Stores of secrets for local runs: Vault or OpenBao, with the login of the user who runs it.

It goes by what the store's own command line goes by: ``VAULT_ADDR``, ``VAULT_TOKEN`` or ``~/.vault-token``,
``VAULT_CACERT``, ``VAULT_NAMESPACE``, and the same with ``BAO_``. A redirect is not followed, since the token would go
with it. No message shows a token, or a text of the store's that could hold a value.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from runkeys._text.documents import read
from runkeys._text.store_answers import fields_of
from runkeys.problems import Denied, Invalid, NotFound, Unreachable

_SECONDS = 10.0
_LARGEST_ANSWER = 1 << 20
_PATIENCE = 5.0
"""Seconds that a store may take to revoke what it was told to revoke."""

_LONGEST = timedelta(hours=12)
"""How long a lease can live if nothing revokes it, because this process was killed."""

_NO_LOGIN = (
    "log in with `vault login` or `bao login`, or set VAULT_TOKEN; or give the value with --env-file instead"
)


@dataclass(frozen=True)
class _Reply:
    status: int
    body: Mapping[str, Any]

    @property
    def data(self) -> Mapping[str, Any]:
        found = self.body.get("data")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Lease:
    """A credential that the store created for a task.

    :ivar token: the login that opened it, and ends with it; empty: the user's own.
    """

    id: str
    expires: datetime
    token: str = field(repr=False, default="")


@dataclass(frozen=True)
class Answer:
    """What is at a path: the fields by name, and the lease if there is one."""

    fields: Mapping[str, Any] = field(repr=False)
    lease: Lease | None = None


class UserStore:
    """The store that the user is logged in to."""

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        """Find address and login. Nothing is sent.

        :raises NotFound: there is no address, or no login.
        """
        self._environment = environment
        self._address = self._setting("ADDR").rstrip("/")
        if not self._address:
            raise NotFound(
                "VAULT_ADDR is not set, which says where your store is, e.g. https://bao.example:8200"
            )
        if urlsplit(self._address).scheme not in ("https", "http") or not urlsplit(self._address).hostname:
            raise Invalid("VAULT_ADDR must be https:// (or http:// for a server on this machine) with a host")
        self._token = self._setting("TOKEN") or _token_file(home)
        if not self._token:
            raise NotFound(f"you are not logged in to {self._address}: {_NO_LOGIN}")
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=self._tls()), _NoRedirect()
        )

    def __repr__(self) -> str:
        return f"UserStore({self._address})"

    def read(self, path: str, what: str, *, leased: bool = False, longest: timedelta | None = None) -> Answer:
        """Read a path once.

        :param what: what needs it, for messages.
        :param leased: a lease is expected. It is opened with a login of its own, if the user may create one, so that
            it ends after ``longest`` even if nothing revokes it.
        :raises Denied: the user may not read it. :raises NotFound: nothing is there.
        :raises Unreachable: there is no answer. :raises Invalid: the answer cannot be used.
        """
        token = self._own_token(longest or _LONGEST) if leased else ""
        try:
            return self._read(path, what, token, leased=leased)
        except BaseException:
            if token:
                self._ask("POST", "auth/token/revoke-self", token=token)
            raise

    def revoke(self, lease: Lease) -> str:
        """Revoke a lease, and see that the store does not know it any more. Returns why not, or an empty text."""
        try:
            if lease.token:
                reply = self._ask("POST", "auth/token/revoke-self", token=lease.token)
            else:
                reply = self._ask("PUT", "sys/leases/revoke", {"lease_id": lease.id, "sync": True})
            # 403 for its own token: that is gone already, and the look-up tells whether the lease is, too.
            if reply.status not in (200, 204) and not (lease.token and reply.status == 403):
                return f"{self._address} answered {reply.status}{_right(reply, 'sys/leases/revoke')}"
            return self._still_there(lease)
        except (Unreachable, Invalid) as error:
            return str(error)

    def is_at(self, address: str) -> bool:
        """Whether the user is logged in to the store of this address."""
        return self._address.lower() == address.rstrip("/").lower()

    def role(self, mount: str, role: str) -> Mapping[str, Any]:
        """The settings of a role of an auth method. Raises Denied, NotFound, Unreachable."""
        path = f"auth/{quote(mount)}/role/{quote(role, safe='')}"
        return self._read(path, f"role {role}", "", leased=False).fields

    def _still_there(self, lease: Lease) -> str:
        """Why a revoked lease may still open something. That the store accepted the request proves nothing."""
        until = time.monotonic() + _PATIENCE
        while True:
            reply = self._ask("PUT", "sys/leases/lookup", {"lease_id": lease.id})
            if reply.status == 400:
                return ""
            if reply.status != 200:
                right = _right(reply, "sys/leases/lookup")
                return f"{self._address} does not say whether it is gone ({reply.status}){right}"
            if time.monotonic() > until:
                return f"{self._address} still has it, and tries again by itself"
            time.sleep(0.1)

    def _read(self, path: str, what: str, token: str, *, leased: bool) -> Answer:
        where = f"{what}: path {path} of {self._address}"
        reply = self._ask("GET", quote(path, safe="/@:+=,~!$&'()*;"), token=token)
        if reply.status == 403:
            raise Denied(
                f"{where}: your login may not read it, or has expired; log in again, or ask for a policy with read on"
                " that path"
            )
        if reply.status == 404:
            raise NotFound(f"{where}: nothing is there; a KV engine of version 2 has data/ after the mount")
        if reply.status != 200 or not reply.data:
            raise Invalid(f"{where}: the store answered {reply.status} without data")
        lease_id, seconds = reply.body.get("lease_id"), reply.body.get("lease_duration")
        if not isinstance(lease_id, str) or not lease_id:
            if leased:
                raise Invalid(f"{where}: the answer has no lease; name it under value instead of lease")
            return Answer(fields_of(reply.data))
        lasts = timedelta(seconds=seconds if isinstance(seconds, int) else 0)
        lease = Lease(lease_id, datetime.now(UTC) + lasts, token)
        if not leased:
            why = self.revoke(lease)
            more = f", and the one that was created is not revoked: {why}" if why else ""
            raise Invalid(
                f"{where}: it creates a credential with a lease; name it under lease instead of value{more}"
            )
        return Answer(fields_of(reply.data), lease)

    def _own_token(self, longest: timedelta) -> str:
        """A login that everything opened with it ends with; empty if the user may not create one."""
        ttl = f"{int(longest.total_seconds())}s"
        body = {"ttl": ttl, "explicit_max_ttl": ttl, "display_name": "runkeys-local"}
        reply = self._ask("POST", "auth/token/create", body)
        auth = reply.body.get("auth")
        token = auth.get("client_token") if reply.status == 200 and isinstance(auth, dict) else None
        return token if isinstance(token, str) else ""

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str = ""
    ) -> _Reply:
        headers = {
            "X-Vault-Token": token or self._token,
            "X-Vault-Request": "true",
            "Accept-Encoding": "identity",
        }
        if namespace := self._setting("NAMESPACE"):
            headers["X-Vault-Namespace"] = namespace
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(  # noqa: S310 -- the scheme was looked at
            f"{self._address}/v1/{path}", data=data, headers=headers, method=method
        )
        try:
            with self._opener.open(request, timeout=_SECONDS) as response:
                return self._reply(response.status, response.read(_LARGEST_ANSWER + 1))
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read(_LARGEST_ANSWER + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(f"{self._address} {_why(error)}") from None
        return self._reply(status, content)

    def _reply(self, status: int, content: bytes) -> _Reply:
        if 300 <= status < 400:
            raise Unreachable(f"{self._address} answers with a redirect; set VAULT_ADDR to the active server")
        if status == 503:
            raise Unreachable(f"{self._address} is sealed, or away; unseal it")
        if status >= 500 or status == 429:
            raise Unreachable(f"{self._address} answers {status}")
        if len(content) > _LARGEST_ANSWER:
            raise Invalid(f"{self._address}: the answer has more than {_LARGEST_ANSWER} bytes")
        try:
            found = read(content) if content else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Unreachable(f"{self._address} answered {status} with something that is not a store's JSON")
        return _Reply(status, found)

    def _setting(self, name: str) -> str:
        return self._environment.get(f"VAULT_{name}") or self._environment.get(f"BAO_{name}") or ""

    def _tls(self) -> ssl.SSLContext:
        file = self._setting("CACERT") or None
        try:
            return ssl.create_default_context(cafile=file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise Invalid(
                f"VAULT_CACERT: {file} cannot be read as PEM certificates{f': {why}' if why else ''}"
            ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token would be sent to wherever the answer says."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        del req, fp, code, msg, headers, newurl


def _token_file(home: Path) -> str:
    try:
        return (home / ".vault-token").read_text().strip()
    except (OSError, ValueError):
        return ""


def _right(reply: _Reply, path: str) -> str:
    return f"; your login needs the capability update on {path}" if reply.status == 403 else ""


def _why(error: Exception) -> str:
    """Why there is no answer. The error's own text may quote what could not be parsed."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"has a certificate that is not accepted ({reason.verify_message}); give that of its authority with"
            " VAULT_CACERT"
        )
    if isinstance(reason, ssl.SSLError):
        return "does not speak TLS as this program does; check VAULT_ADDR"
    if isinstance(reason, TimeoutError):
        return "does not answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return f"cannot be reached: {reason.strerror}; check VAULT_ADDR, and that the server runs"
    return f"does not answer: {type(reason).__name__}"
