"""Secrets of a user or a team in the cluster: names are listed, values are sealed before they leave, one is read back.

A personal binding holds one user's secrets in one namespace: only that user can write, use and read it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runkeys import sealing
from runkeys._text import documents
from runkeys._text.times import to_seconds
from runkeys._text.words import kubectl
from runkeys.api import BindingEntry, SecretBinding
from runkeys.api.common import API_VERSION, GROUP, describe_invalid
from runkeys.client import MERGE_PATCH, Client
from runkeys.problems import Conflict, Denied, Invalid, NotFound, TimedOut

CHANGED = f"{GROUP}/changed"
"""Annotation of a binding: by entry when it was set, as JSON."""

_TRIES = 5
_ANSWER_SECONDS = 30.0
_LOOK_EVERY = 0.2


@dataclass(frozen=True)
class Item:
    """A secret, never its value.

    :ivar origin: ``sealed``, or the Secret or SecretStore that it comes from.
    :ivar ready: whether the operator can read it; None: it has not looked yet.
    :ivar changed: when it was set by `BindingSecrets.set`; empty if that is not known.
    """

    name: str
    origin: str
    ready: bool | None
    reason: str
    changed: str


class BindingSecrets:
    """The entries of one binding."""

    def __init__(self, client: Client, binding: str | None = None) -> None:
        """:param binding: default: the personal one of this user."""
        self._client, self._named = client, binding

    @property
    def what(self) -> str:
        """It in words."""
        if self._named is not None:
            return f"SecretBinding {self._named} in namespace {self._client.namespace}"
        return f"your personal binding in namespace {self._client.namespace}"

    def items(self) -> list[Item]:
        """All secrets, by name. Of a personal binding that does not exist yet: none."""
        raw = self._read()
        if raw is None:
            if self._named is not None:
                raise NotFound(f"there is no {self.what}")
            return []
        binding, changed = _parsed(raw), _changed(raw)
        told = {item.name: item for item in binding.status.entries}
        return sorted(
            (
                Item(
                    entry.name,
                    _origin(entry),
                    told[entry.name].ready if entry.name in told else None,
                    told[entry.name].reason if entry.name in told else "",
                    changed.get(entry.name, ""),
                )
                for entry in binding.spec.secrets
            ),
            key=lambda item: item.name,
        )

    def set(self, name: str, value: bytes, say: Callable[[str], None] = lambda _: None) -> None:
        """Seal a value and put it in, in place of an earlier one. Makes a personal binding that does not exist."""
        check_name(name)
        key = self._client.public_key(say)
        for attempt in range(_TRIES):
            raw = self._read()
            if raw is None and self._named is not None:
                raise NotFound(f"there is no {self.what}; create it first: you decide which runs may use it")
            try:
                if raw is None:
                    self._create(name, value, key, taken=attempt > 0)
                else:
                    self._replace(raw, name, value, key)
            except Conflict:
                continue  # another writer was quicker
            return
        raise Conflict(f"{self.what} was changed by others each time; try again")

    def delete(self, name: str) -> None:
        """Delete a secret. Raises NotFound."""
        for _ in range(_TRIES):
            raw = self._read()
            entries = raw["spec"]["secrets"] if raw is not None else []
            if raw is None or name not in [item["name"] for item in entries]:
                raise self._unknown(name)
            left = [item for item in entries if item["name"] != name]
            try:
                if left:
                    self._patch(raw, left, {**_changed(raw), name: None})
                elif self._named is None:
                    self._client.request("DELETE", self._path(raw))
                else:
                    raise Invalid(
                        f"{name!r} is the last secret of {self.what}, and a binding has at least one; delete the"
                        f" binding: {kubectl(self._client.namespace, 'delete', 'rkb', self._named)}"
                    )
            except Conflict:
                continue
            return
        raise Conflict(f"{self.what} was changed by others each time; try again")

    def get(self, name: str) -> bytes:
        """Read a value back. It comes sealed with a key that is made for this call, and is on record in the cluster.

        :raises NotFound: there is no such secret.
        :raises Denied: the right ``reveal`` on the binding is missing.
        :raises TimedOut: the operator did not answer in 30 seconds.
        """
        key = sealing.PrivateKey.generate()
        asked: dict[str, Any] = {"personal": True} if self._named is None else {"binding": self._named}
        made = self._client.create(
            self._client.path("secretreveals"),
            {
                "apiVersion": API_VERSION,
                "kind": "SecretReveal",
                "metadata": {"generateName": "reveal-", "namespace": self._client.namespace},
                "spec": {
                    **asked,
                    "entry": name,
                    "publicKey": key.public.text,
                    "requester": self._client.requester,
                },
            },
        )
        status = self._answer(made)
        if "sealed" not in status:
            if status.get("reason") in ("BindingNotFound", "SecretNotFound"):
                raise self._unknown(name)
            raise Denied(str(status.get("message") or status.get("reason")))
        place = sealing.RevealAnswer(self._client.namespace, made["metadata"]["uid"])
        return sealing.Keyring(key).open(status["sealed"], place)

    def _unknown(self, name: str) -> NotFound:
        """A secret that is not there, with those that are."""
        try:
            names = [item.name for item in self.items()]
        except NotFound as error:
            return error
        except Denied:  # a user who may only reveal
            return NotFound(f"there is no secret {name!r} in {self.what}")
        return NotFound(f"there is no secret {name!r} in {self.what}; it has: {', '.join(names) or 'none'}")

    def _answer(self, made: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + _ANSWER_SECONDS
        path = self._client.path("secretreveals", made["metadata"]["name"])
        while time.monotonic() < until:
            status: dict[str, Any] = self._client.read(path).get("status") or {}
            if status.get("answeredTime"):
                return status
            time.sleep(_LOOK_EVERY)
        raise TimedOut("the operator did not answer; check whether it is running: runkeys doctor")

    def _read(self) -> dict[str, Any] | None:
        client = self._client
        if self._named is not None:
            try:
                return client.read(client.path("secretbindings", self._named))
            except NotFound:
                return None
        owner = client.requester["username"]
        escaped = owner.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        found = client.items(client.path("secretbindings"), fieldSelector=f"spec.owner.username={escaped}")
        if len(found) > 1:
            names = ", ".join(item["metadata"]["name"] for item in found)
            raise Invalid(f"you have several personal bindings ({names}); delete all but one")
        return found[0] if found else None

    def _create(self, name: str, value: bytes, key: sealing.PublicKey, *, taken: bool) -> None:
        client = self._client
        owner = client.requester["username"]
        # Anybody may have taken the usual name; the binding is found by its owner, so that any will do.
        binding = f"{personal_name(owner)}-{secrets.token_hex(4)}" if taken else personal_name(owner)
        place = sealing.PersonalEntry(client.namespace, owner, name)
        spec = {"owner": {"username": owner}, "secrets": [_entry(name, place, value, key)]}
        metadata = {
            "name": binding,
            "namespace": client.namespace,
            "annotations": {CHANGED: json.dumps({name: to_seconds(datetime.now(UTC))})},
        }
        body = {"apiVersion": API_VERSION, "kind": "SecretBinding", "metadata": metadata, "spec": spec}
        client.create(client.path("secretbindings"), body)

    def _replace(self, raw: dict[str, Any], name: str, value: bytes, key: sealing.PublicKey) -> None:
        entries, owner = list(raw["spec"]["secrets"]), raw["spec"].get("owner")
        place: sealing.Context = (
            sealing.PersonalEntry(self._client.namespace, owner["username"], name)
            if owner
            else sealing.BindingEntry(self._client.namespace, raw["metadata"]["name"], name)
        )
        entry = _entry(name, place, value, key)
        places = [number for number, item in enumerate(entries) if item["name"] == name]
        if places:
            entries[places[0]] = entry
        else:
            entries.append(entry)
        self._patch(raw, entries, {**_changed(raw), name: to_seconds(datetime.now(UTC))})

    def _patch(self, raw: dict[str, Any], entries: list[Any], changed: dict[str, str | None]) -> None:
        kept = json.dumps({entry: at for entry, at in changed.items() if at is not None})
        metadata = {
            "resourceVersion": raw["metadata"]["resourceVersion"],
            "annotations": {CHANGED: kept},
        }
        body = {"metadata": metadata, "spec": {"secrets": entries}}
        self._client.request("PATCH", self._path(raw), body, content=MERGE_PATCH)

    def _path(self, raw: dict[str, Any]) -> str:
        return self._client.path("secretbindings", raw["metadata"]["name"])


def check_name(name: str) -> None:
    """Check the name of a secret. Raises Invalid."""
    if not 0 < len(name) <= 253 or any("\ud800" <= sign <= "\udfff" for sign in name):
        raise Invalid("the name of a secret has 1 to 253 characters of UTF-8 text")


def personal_name(username: str) -> str:
    """Name of a user's personal binding: user names have characters that names of objects have not."""
    return f"personal-{hashlib.sha256(username.encode()).hexdigest()[:10]}"


def _entry(name: str, place: sealing.Context, value: bytes, key: sealing.PublicKey) -> dict[str, str]:
    try:
        return {"name": name, "sealed": sealing.seal(value, place, key)}
    except sealing.SealError as error:
        raise Invalid(str(error)) from None


def _origin(entry: BindingEntry) -> str:
    if entry.secret_key_ref is not None:
        return f"Secret {entry.secret_key_ref.name}, key {entry.secret_key_ref.key}"
    found = entry.value or entry.lease
    if found is not None:
        return f"SecretStore {found.store}, {found.path}, field {found.field}"
    return "template" if entry.template is not None else "sealed"


def _parsed(raw: dict[str, Any]) -> SecretBinding:
    from pydantic import ValidationError

    try:
        return SecretBinding.parse(raw)
    except ValidationError as error:
        problem = Invalid(
            f"SecretBinding {raw['metadata']['name']} cannot be read: {describe_invalid(error)}"
        )
    raise problem


def _changed(raw: dict[str, Any]) -> dict[str, Any]:
    try:
        found = documents.read((raw["metadata"].get("annotations") or {}).get(CHANGED, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
