"""What a store of secrets can do for the operator. Nothing here shows a value or a token when it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol


@dataclass(frozen=True)
class Identity:
    """Who logs in: a role in the store, and the token that proves who asks for it."""

    role: str
    token: str = field(repr=False)


@dataclass(frozen=True)
class Session:
    """A login. It lives until it is closed, and ``seconds`` at most.

    :ivar handle: names the login without opening anything, so that it may be put on record. With it whoever has that
        right revokes the login and its leases.
    :ivar seconds: from when it was opened.
    """

    handle: str
    seconds: int
    token: str = field(repr=False)


@dataclass(frozen=True)
class Lease:
    """A credential that the store created for this read, and deletes with the session that read it."""

    id: str
    seconds: int


@dataclass(frozen=True)
class Answer:
    """What the store has at a path: the fields by name, and the lease if there is one.

    :ivar content: all of it, from stores whose answer is a file.
    """

    fields: Mapping[str, Any] = field(repr=False)
    lease: Lease | None = None
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Revoked:
    """Nothing of the session opens anything any more."""


@dataclass(frozen=True)
class Pending:
    """It may still open something. ``why``: in words, without a value."""

    why: str


@dataclass(frozen=True)
class NotRevocable:
    """There is no login that could be revoked: what was opened expires with the token that opened it."""


class Failure(Enum):
    """Why a store did not do what it was asked for."""

    AWAY = auto()
    """No answer, or none of a store that works: asked again, it may answer."""
    LOGIN = auto()
    """It does not accept the identity for the role."""
    FORBIDDEN = auto()
    """The role may not read the path."""
    NOT_FOUND = auto()
    """Nothing is at the path."""
    UNFIT = auto()
    """The answer is not one that can be used."""


class StoreError(Exception):
    """The store did not do it. The text says what was found and what to do, and holds no value and no token."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class Provider(Protocol):
    """One store. All methods raise :class:`StoreError`."""

    async def open(self, identity: Identity) -> Session:
        """Log in."""

    async def read(self, session: Session, path: str, *, leased: bool = False) -> Answer:
        """Read a path once. If the answer has a lease, it lives no longer than the session.

        :param leased: it should have one, so that asking twice would create two.
        """

    async def renew(self, session: Session, seconds: int) -> int:
        """Have the session live for so many seconds from now; return for how many it does."""

    async def close(self, session: Session) -> Revoked | Pending | NotRevocable:
        """End the session, with its own right."""

    async def revoke(self, by: Session, handle: str, leases: Sequence[str] | None) -> Revoked | Pending:
        """Revoke the session that has this handle, and see that the store has none of its leases any more.

        :param by: the operator's own session.
        :param leases: their ids; None: nobody was given what the session created, if it did create anything.
        """

    async def check(self, role: str | None = None) -> None:
        """Raise if it is known, without anybody's identity, that ``open`` would fail (for the role)."""
