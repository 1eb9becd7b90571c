"""The sealing keys of this cluster: where they are stored, when a new one is created, and who needs an old one.

The private keys are in one Secret of a fixed name in the operator's namespace, the public ones in a ConfigMap that
everybody may read. The chart creates both, empty, so that the operator needs no right to create either. A private
key is stored before its public half is published, so that every sealed value can be unsealed.

In the Secret a key is `<when it was made>.<key id>`, so that the last name is the newest, and its data are the 32
bytes of the seed. A copy of that Secret is the backup.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runkeys import sealing
from runkeys.names import PUBLIC_KEYS, SEALING_KEYS
from runkeys.sealing import Keyring, PrivateKey
from runkeys.sealing.text import SEED_LENGTH
from runkeys_operator.errors import Conflict, Forbidden, NotFound
from runkeys_operator.kube import CONFIG_MAPS, SECRETS, Json, Kube, Resource
from runkeys_operator.process import metrics
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

PRIVATE = SEALING_KEYS
"""Name of the Secret."""

PUBLIC = PUBLIC_KEYS
"""Name of the ConfigMap. `current` is what to seal with; `key-<id>` are all of them."""

CURRENT = "current"

_NAME = re.compile(r"([0-9]{8}T[0-9]{6}Z)\.([0-9a-f]{16})")
_TIME = "%Y%m%dT%H%M%SZ"
_READ_AGAIN = timedelta(seconds=5)
_LOOK_AGAIN = timedelta(minutes=10)
_TRIES = 5
"""Of a write that others are quicker than. The ConfigMap has other writers: it holds the record of the policies too."""


class KeysError(Exception):
    """The keys are unavailable. The text says why and what to do."""


@dataclass(frozen=True)
class StoredKey:
    """A private key and its creation time."""

    made: datetime
    private: PrivateKey

    @property
    def id(self) -> str:
        """Its id, as sealed values name it."""
        return self.private.public.key_id

    @property
    def name(self) -> str:
        """Its name in the Secret."""
        return f"{self.made:{_TIME}}.{self.id}"


class Keys:
    """The keyring, read when it is needed and again when somebody names a key that is not in it."""

    def __init__(
        self,
        kube: Kube,
        namespace: str | None,
        *,
        rotate_after: timedelta | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        """`namespace` None: there are no keys here. `rotate_after` None: only by command."""
        self._kube = kube
        self._namespace = namespace
        self._rotate_after = rotate_after
        self._now = clock or kube.clock.now
        self._keyring: Keyring | None = None
        self._read_at: datetime | None = None
        self._look_due: datetime | None = None

    def __repr__(self) -> str:
        return f"Keys({self._namespace})"

    async def open(self, text: str, context: sealing.Context) -> bytes:
        """The value of a sealed text.

        :raises KeysError: there are no keys to open it with.
        :raises sealing.SealError: it does not open.
        """
        if self._keyring is None:
            await self._load()
        elif sealing.key_id_of(text) not in self._keyring.key_ids and self._may_read_again():
            await self._load()  # another replica, or a command, has created one since
        if self._keyring is None:
            raise KeysError("there is no sealing key yet; the operator creates one when it starts")
        return self._keyring.open(text, context)

    async def tend(self) -> None:
        """Create the first key, or the next one when it is due, and publish it. Cheap: looks now and then."""
        now = self._now()
        if self._namespace is None or (self._look_due is not None and now < self._look_due):
            return
        try:
            stored, version = await self._load()
            if not stored or (self._rotate_after is not None and stored[-1].made + self._rotate_after <= now):
                await self._add(PrivateKey.generate(), stored, version)
            await self._publish()
        except Conflict:
            return  # another writer was quicker: look again next time
        except KeysError as error:
            log.warning("sealed values cannot be opened: %s", error)
        self._look_due = now + _LOOK_AGAIN

    async def stored(self) -> list[StoredKey]:
        """All keys, the oldest first. Raises KeysError."""
        return (await self._load())[0]

    async def rotate(self) -> StoredKey:
        """Create a new key, with which everything is sealed from now on. Raises KeysError."""
        private = PrivateKey.generate()
        for _ in range(_TRIES):
            with contextlib.suppress(Conflict):
                key = await self._add(private, *await self._load())
                break
        else:
            raise KeysError(f"no key was created: {self._others(SECRETS, PRIVATE)}; try again")
        try:
            await self._publish()
        except Conflict:
            raise KeysError(
                f"key {key.id} is created, but not published yet: {self._others(CONFIG_MAPS, PUBLIC)}; the operator"
                f" publishes it within {_LOOK_AGAIN.seconds // 60} minutes"
            ) from None
        return key

    async def retire(self, key_id: str) -> None:
        """Delete a key: values sealed with it can never be unsealed again. Raises KeysError."""
        try:
            for _ in range(_TRIES):
                stored, version = await self._load()
                found = an_older(stored, key_id)
                await self._publish(without=key_id)  # first: nobody may seal with a deleted key
                with contextlib.suppress(Conflict):
                    await self._kube.patch(
                        *(SECRETS, self._namespace, PRIVATE, {"data": {found.name: None}}),
                        resource_version=version,
                    )
                    break
            else:
                raise KeysError(f"key {key_id} is not deleted: {self._others(SECRETS, PRIVATE)}; try again")
            log.warning("sealing key %s is retired", key_id)
            await self._publish()  # again: an operator may have published it in between
        except Conflict:
            raise KeysError(
                f"others changed ConfigMap {PUBLIC} each time; see which keys there are (keys list), and try again"
            ) from None

    async def _load(self) -> tuple[list[StoredKey], str]:
        """The keys that are stored, and the version of the Secret."""
        secret = await self._get(SECRETS, PRIVATE)
        stored = sorted(_stored(secret.get("data") or {}), key=lambda key: key.name)
        self._read_at = self._now()
        _measure(stored)
        if stored:
            newest, *older = [key.private for key in reversed(stored)]
            self._keyring = Keyring(newest, older)
        else:
            self._keyring = None
        return stored, str(secret["metadata"]["resourceVersion"])

    async def _get(self, resource: Resource, name: str) -> Json:
        if self._namespace is None:
            raise KeysError(
                "the operator does not know its own namespace, where the keys are (--operator-namespace)"
            )
        what = self._what(resource, name)
        try:
            return await self._kube.get(resource, self._namespace, name)
        except NotFound:
            raise KeysError(
                f"there is no {what}; the chart creates it: install it again, or restore it"
            ) from None
        except Forbidden:
            raise KeysError(f"the operator may not read {what} (see the chart's roles)") from None

    async def _add(self, private: PrivateKey, stored: list[StoredKey], version: str) -> StoredKey:
        """Store a key beside those of this version of the Secret. It is not published yet. Raises Conflict."""
        made = max([self._now().replace(microsecond=0), *(key.made + timedelta(seconds=1) for key in stored)])
        key = StoredKey(made, private)
        patch: Json = {"data": {key.name: base64.b64encode(private.seed).decode()}}
        await self._kube.patch(SECRETS, self._namespace, PRIVATE, patch, resource_version=version)
        log.info("sealing key %s created, fingerprint %s", key.id, private.public.fingerprint)
        return key

    async def _publish(self, *, without: str = "") -> None:
        """Publish the public half of each stored key, but not of the one with the id `without`.

        :raises Conflict: others changed the ConfigMap each time.
        """
        for left in reversed(range(_TRIES)):
            # The ConfigMap is read first. So the keys are at least as new as what its version has, and if somebody
            # publishes newer ones meanwhile, the write below is refused.
            published = await self._get(CONFIG_MAPS, PUBLIC)
            stored = [key for key in (await self._load())[0] if key.id != without]
            before: dict[str, str] = published.get("data") or {}
            if not stored:
                raise KeysError(
                    f"{self._what(SECRETS, PRIVATE)} has no key any more; restore it from its backup"
                )
            due = {f"key-{key.id}": key.private.public.text for key in stored}
            due[CURRENT] = stored[-1].private.public.text
            if before == due:
                return
            change = {"data": {**dict.fromkeys(before), **due}}
            version = str(published["metadata"]["resourceVersion"])
            try:
                await self._kube.patch(CONFIG_MAPS, self._namespace, PUBLIC, change, resource_version=version)
            except Conflict:
                if not left:
                    raise
            else:
                log.info("public keys published, seal with %s", stored[-1].id)
                return

    def _what(self, resource: Resource, name: str) -> str:
        return f"{'Secret' if resource is SECRETS else 'ConfigMap'} {name} in namespace {self._namespace}"

    def _others(self, resource: Resource, name: str) -> str:
        return f"others changed {self._what(resource, name)} each time"

    def _may_read_again(self) -> bool:
        return self._read_at is None or self._read_at + _READ_AGAIN <= self._now()


def _measure(stored: list[StoredKey]) -> None:
    metrics.sealing_keys.set(len(stored))
    metrics.newest_key.set(stored[-1].made.timestamp() if stored else 0)
    metrics.oldest_key.set(stored[0].made.timestamp() if stored else 0)


def an_older(stored: list[StoredKey], key_id: str) -> StoredKey:
    """The key with that id, if it can be retired. Raises KeysError."""
    found = next((key for key in stored if key.id == key_id), None)
    if found is None:
        there = ", ".join(key.id for key in stored) or "none"
        raise KeysError(f"there is no key {key_id}; there are: {there}")
    if found is stored[-1]:
        raise KeysError(f"key {key_id} is the newest, which seals all new values; rotate first")
    return found


def _stored(data: dict[str, str]) -> list[StoredKey]:
    keys = []
    for name, encoded in data.items():
        found = _NAME.fullmatch(name)
        seed = _decoded(encoded)
        if found is None or len(seed) != SEED_LENGTH:
            log.error("%s in Secret %s is not a sealing key; it is left alone", name, PRIVATE)
            continue
        key = StoredKey(datetime.strptime(found[1], _TIME).replace(tzinfo=UTC), PrivateKey(seed))
        if key.id != found[2]:
            log.error("%s in Secret %s holds key %s; it is left alone", name, PRIVATE, key.id)
            continue
        keys.append(key)
    return keys


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return b""
