"""Stores behind a provider of the Secrets Store CSI driver, which runs beside the operator. The operator is the driver.

A provider is a vendor's program. It is told the pod, its service account and a token of it, reads with that token, and
returns files. What it says of a failure may hold anything, so none of it is shown: its own log has it.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runkeys._text import documents
from runkeys._text.times import to_seconds
from runkeys.api.store import CsiStore
from runkeys.planning.stores import filled
from runkeys_operator.stores import grpc
from runkeys_operator.stores.csi_messages import (
    VERSION,
    File,
    MessageError,
    mount_answer,
    mount_request,
    version_answer,
    version_request,
)
from runkeys_operator.stores.provider import (
    Answer,
    Failure,
    Identity,
    NotRevocable,
    Pending,
    Session,
    StoreError,
)

NO_PROVIDERS = "no provider runs beside the operator (stores.providers of the chart)"

_SERVICE = "/v1alpha1.CSIDriverProvider"
_SECONDS = 10.0
_AWAY_SECONDS = 2.0
"""For so long nobody asks a provider that did not answer: those who wait for it hold up everybody else."""

_POD = "csi.storage.k8s.io/"
_NO_SECRETS = "{}"
_PERMISSION = str(0o400)
_TARGET = "/var/run/runkeys/no-volume"
"""The path of the volume. There is none: a provider that tries to write there fails, and says so."""

_STATUSES = {
    4: Failure.AWAY,  # DEADLINE_EXCEEDED
    5: Failure.NOT_FOUND,
    7: Failure.FORBIDDEN,  # PERMISSION_DENIED
    8: Failure.AWAY,  # RESOURCE_EXHAUSTED
    14: Failure.AWAY,  # UNAVAILABLE
    16: Failure.LOGIN,  # UNAUTHENTICATED
}

# Providers hand on what their cloud answered, most of them without a status. In this order: a login that is refused is
# also forbidden.
_WORDS = (
    (
        Failure.LOGIN,
        re.compile(
            r"AssumeRoleWithWebIdentity|AssumeRoleForPodIdentity|AADSTS\d|invalid_(client|grant|token)"
            r"|identitybindingtoken|unable to obtain auth|/login\b|failed to login",
            re.IGNORECASE,
        ),
    ),
    (
        Failure.FORBIDDEN,
        re.compile(
            r"access ?denied|forbidden|permission ?denied|not authorized|unauthorized|code: 403\b",
            re.IGNORECASE,
        ),
    ),
    (
        Failure.NOT_FOUND,
        re.compile(
            r"not ?found|does ?n.t exist|does not exist|can.t find|no secret found|code: 404\b", re.IGNORECASE
        ),
    ),
)


@dataclass(frozen=True)
class _Session(Session):
    """The pod's token, which each read takes along: a provider logs in by itself."""

    role: str = ""


class Providers:
    """The sockets of all providers: each in a folder of its own, so that none can stand in for another."""

    def __init__(self, folder: Path | None) -> None:
        """``folder``: None if there are none."""
        self._folder = folder
        self._away: dict[str, tuple[float, str]] = {}

    @property
    def any(self) -> bool:
        """Whether there can be one."""
        return self._folder is not None

    async def ask(self, name: str, method: str, message: bytes) -> bytes:
        """Call a provider. Raises StoreError."""
        if self._folder is None:
            raise StoreError(Failure.AWAY, NO_PROVIDERS)
        socket = self._folder / name / f"{name}.sock"
        until, why = self._away.get(name, (0.0, ""))
        if time.monotonic() < until:
            raise StoreError(Failure.AWAY, why)
        self._away.pop(name, None)
        try:
            return await grpc.call(socket, f"{_SERVICE}/{method}", message, seconds=_SECONDS)
        except grpc.Unanswered as error:
            why = f"provider {name} at {socket} {error}; see container provider-{name} of the operator's pod"
            self._away[name] = time.monotonic() + _AWAY_SECONDS, why
            raise StoreError(Failure.AWAY, why) from None
        except grpc.TooLarge as error:
            raise StoreError(Failure.UNFIT, f"provider {name}: {error}") from None
        except grpc.Refused as error:
            raise _refused(name, error.status, error.message) from None


class Csi:
    """One store."""

    def __init__(self, providers: Providers, spec: CsiStore) -> None:
        self._providers = providers
        self._spec = spec

    async def open(self, identity: Identity) -> Session:
        """The token itself is the session: the provider logs in with it for each read."""
        claims = _claims(identity.token)
        seconds = int(claims.get("exp", 0)) - int(claims.get("iat", 0))
        return _Session("", seconds, identity.token, identity.role)

    async def read(self, session: Session, path: str, *, leased: bool = False) -> Answer:  # noqa: ARG002
        """Have the provider read a path. It must return one file, which never has a lease."""
        name = self._spec.provider
        role = session.role if isinstance(session, _Session) else ""
        attributes = {**filled(self._spec.parameters, path, role), **self._pod(session.token)}
        request = mount_request(
            json.dumps(attributes), secrets=_NO_SECRETS, target=_TARGET, permission=_PERMISSION
        )
        content = await self._providers.ask(name, "Mount", request)
        try:
            answer = mount_answer(content)
        except MessageError as error:
            raise StoreError(Failure.AWAY, f"provider {name} answers with {error}") from None
        if answer.error:
            raise _refused(name, 2, answer.error)
        return _answer(name, answer.files)

    async def renew(self, session: Session, seconds: int) -> int:  # noqa: ARG002
        """The token lives as long as it does."""
        return session.seconds

    async def close(self, session: Session) -> NotRevocable:  # noqa: ARG002
        """Nothing is to be revoked: the token expires, and with it what the provider made of it."""
        return NotRevocable()

    async def revoke(self, by: Session, handle: str, leases: Sequence[str] | None) -> Pending:  # noqa: ARG002
        """Nothing can be: the protocol has no call for it."""
        return Pending(f"what provider {self._spec.provider} opens cannot be revoked, and ends by itself")

    async def check(self, role: str | None = None) -> None:  # noqa: ARG002
        """Whether the provider answers and speaks this protocol."""
        name = self._spec.provider
        try:
            found = version_answer(await self._providers.ask(name, "Version", version_request()))
        except MessageError as error:
            raise StoreError(Failure.AWAY, f"provider {name} answers with {error}") from None
        if found.version != VERSION:
            raise StoreError(
                Failure.AWAY, f"provider {name} does not speak {VERSION} of the driver's protocol"
            )

    def _pod(self, token: str) -> Mapping[str, str]:
        """What the driver says of a pod: here by what its token says, so that no other can be named beside it."""
        claims = _claims(token)
        about = claims.get("kubernetes.io") or {}
        pod, account = about.get("pod") or {}, about.get("serviceaccount") or {}
        expires = to_seconds(datetime.fromtimestamp(int(claims.get("exp", 0)), UTC))
        tokens = {self._spec.audience: {"token": token, "expirationTimestamp": expires}}
        return {
            f"{_POD}pod.name": str(pod.get("name", "")),
            f"{_POD}pod.namespace": str(about.get("namespace", "")),
            f"{_POD}pod.uid": str(pod.get("uid", "")),
            f"{_POD}serviceAccount.name": str(account.get("name", "")),
            f"{_POD}serviceAccount.tokens": json.dumps(tokens),
            f"{_POD}ephemeral": "true",
        }


def _claims(token: str) -> Mapping[str, Any]:
    """What a token says. The API server has just made it."""
    try:
        payload = token.split(".")[1]
        found = documents.read(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise StoreError(Failure.UNFIT, "the token of the pod's service account is no JWT")
    return found


def _answer(name: str, files: tuple[File, ...]) -> Answer:
    if not files:
        raise StoreError(
            Failure.UNFIT,
            f"provider {name} returned no file; it has to return what it reads instead of writing it itself (the option"
            " --driver-writes-secrets of the provider for AWS), and the parameters have to ask for one object",
        )
    if len(files) > 1:
        raise StoreError(
            Failure.UNFIT,
            f"provider {name} returned {len(files)} files; the parameters have to ask for one object",
        )
    content = files[0].content
    try:
        found = documents.read(content)
    except ValueError:
        found = None
    return Answer(found if isinstance(found, dict) else {}, content=content)


def _refused(name: str, status: int, said: str) -> StoreError:
    """What a failure is, as far as the provider's words let that be seen."""
    found = (kind for kind, words in _WORDS if words.search(said))
    failure = _STATUSES.get(status) or next(found, Failure.UNFIT)
    if failure is Failure.FORBIDDEN and _WORDS[0][1].search(said):
        failure = Failure.LOGIN
    log = f"the log of container provider-{name} says more"
    text = {
        Failure.LOGIN: f"the cloud of provider {name} does not accept the pod's service account; {log}",
        Failure.FORBIDDEN: f"the pod's service account may not read it; {log}",
        Failure.AWAY: f"provider {name} does not reach its store; {log}",
        Failure.UNFIT: f"provider {name} could not read it; {log}",
    }
    return StoreError(failure, text.get(failure, ""))
