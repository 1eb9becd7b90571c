"""A small store of JSON values by key, for use by later runs. Not for secrets.

All values are in one ConfigMap of the namespace, ``runkeys-kv``. It is read and written with the caller's rights: on a
laptop the kubeconfig's, in a task those of its service account. Each write is a patch of one key, and the API server
applies it atomically, so that two writers never undo each other's writes.

Without a cluster: the variable RUNKEYS_KV_FILE names a JSON file, which is used instead unless ``config_name`` is
given. ``runkeys kv`` and tasks of local runs use it too. A lock keeps two writers on one machine apart.

The functions with ``_async`` do the same without blocking the event loop.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from runkeys import config
from runkeys._task import environment
from runkeys._task.in_thread import in_thread
from runkeys._text import documents
from runkeys.names import KEY_VALUES
from runkeys.problems import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from runkeys.client import Client

CONFIG_MAP = KEY_VALUES
FILE_VARIABLE = "RUNKEYS_KV_FILE"
MAX_VALUE = 10_000
"""Maximum size of a value as JSON, in bytes."""

_ID = uuid.UUID("0f4c8f5e-3f0b-4f0e-9c7d-3a5f6f1f2b61")
_PLAIN = re.compile(r"[-_A-Za-z0-9][-._A-Za-z0-9]{0,199}")
_HASHED = "sha256."


class Store(Protocol):
    """Where values are kept."""

    where: str

    def set(self, key: str, value: Any) -> str:
        """Store a value; see `set_key_value`."""

    def get(self, key: str) -> Any:
        """Return a value; see `get_key_value`."""

    def delete(self, key: str) -> None:
        """Delete a key; see `delete_key`."""

    def keys(self) -> list[str]:
        """Return all keys, sorted; see `list_keys`."""


class KeyValues:
    """The store of one namespace, used with the rights of a client."""

    def __init__(self, client: Client) -> None:
        self._client, self.where = client, f"namespace {client.namespace}"

    def set(self, key: str, value: Any) -> str:
        """Store a value; see `set_key_value`."""
        entry = _entry(key, value)
        try:
            self._write(entry)
        except Invalid as error:
            raise ValueError(f"key {key!r} cannot be stored: {error}") from None
        return _id_of(self._client.namespace, key)

    def get(self, key: str) -> Any:
        """Return a value; see `get_key_value`."""
        _check(key)
        stored = self._read().get(_field(key))
        if stored is None:
            raise _unknown(key, self.where)
        return _parsed(stored)["value"]

    def delete(self, key: str) -> None:
        """Delete a key; see `delete_key`."""
        _check(key)
        # The API server refuses it if the key does not exist. So of two that delete the same key, one gets the error.
        remove = [{"op": "remove", "path": f"/data/{_field(key)}"}]
        try:
            self._client.request("PATCH", self._path, remove, content="application/json-patch+json")
        except (NotFound, Invalid):
            raise _unknown(key, self.where) from None

    def keys(self) -> list[str]:
        """Return all keys, sorted; see `list_keys`."""
        return sorted(str(_parsed(stored)["key"]) for stored in self._read().values())

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._client.namespace}/configmaps/{CONFIG_MAP}"

    def _write(self, data: dict[str, str]) -> None:
        try:
            self._merge(data)
            return
        except NotFound:
            pass
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG_MAP}, "data": data}
        try:
            self._client.create(f"/api/v1/namespaces/{self._client.namespace}/configmaps", body)
        except Conflict:  # somebody else has made it meanwhile
            self._merge(data)

    def _merge(self, data: dict[str, str]) -> None:
        self._client.request("PATCH", self._path, {"data": data}, content="application/merge-patch+json")

    def _read(self) -> dict[str, str]:
        try:
            return dict(self._client.read(self._path).get("data") or {})
        except NotFound:
            return {}


class FileValues:
    """A store in a JSON file, for work without a cluster."""

    def __init__(self, path: Path) -> None:
        self._path, self.where = path, str(path)

    def set(self, key: str, value: Any) -> str:
        """Store a value; see `set_key_value`."""
        _entry(key, value)
        with self._locked():
            self._write({**self._read(), key: value})
        return _id_of(str(self._path.resolve()), key)

    def get(self, key: str) -> Any:
        """Return a value; see `get_key_value`."""
        _check(key)
        known = self._read()
        if key not in known:
            raise _unknown(key, self.where)
        return known[key]

    def delete(self, key: str) -> None:
        """Delete a key; see `delete_key`."""
        _check(key)
        with self._locked():
            known = self._read()
            if key not in known:
                raise _unknown(key, self.where)
            self._write({name: value for name, value in known.items() if name != key})

    def keys(self) -> list[str]:
        """Return all keys, sorted; see `list_keys`."""
        return sorted(self._read())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl

        # Beside the file, since that is replaced as a whole.
        with self._opened(self._path.with_name(f".{self._path.name}.lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _opened(path: Path) -> IO[bytes]:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("ab")
        except OSError as error:
            raise Invalid(f"{path} cannot be written: {error.strerror}") from None

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Invalid(f"{self._path} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Invalid(
                f"{self._path} is not a JSON object with values by key; correct it, or name another file"
            )
        return found

    def _write(self, known: dict[str, Any]) -> None:
        fresh = self._path.with_name(f".{self._path.name}.new")
        fresh.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        fresh.replace(self._path)


def set_key_value(
    key: str, value: Any, *, workspace_id: str | None = None, config_name: str | None = None
) -> str:
    """Store a JSON value under a key, and replace an earlier value. Return the pair's ID, a UUID.

    The ID is derived from the namespace and the key, so it stays the same.

    :raises ValueError: the value is not JSON, or has more than 10,000 bytes as JSON; the key is empty; the store is
        full.
    :raises Denied: a right on the ConfigMap is missing.
    """
    _entry(key, value)  # an unsuitable value is refused before anything is looked up
    return _store(workspace_id, config_name).set(key, value)


def get_key_value(key: str, *, workspace_id: str | None = None, config_name: str | None = None) -> Any:
    """Return the value of a key.

    :raises ValueError: there is no such key.
    :raises Denied: the right to read the ConfigMap is missing.
    """
    return _store(workspace_id, config_name).get(key)


def delete_key(key: str, *, workspace_id: str | None = None, config_name: str | None = None) -> bool:
    """Delete a key and return True.

    :raises ValueError: there is no such key.
    :raises Denied: a right on the ConfigMap is missing.
    """
    _store(workspace_id, config_name).delete(key)
    return True


def list_keys(*, workspace_id: str | None = None, config_name: str | None = None) -> list[str]:
    """Return all keys, sorted. Raises Denied if the right to read the ConfigMap is missing."""
    return _store(workspace_id, config_name).keys()


async def set_key_value_async(
    key: str, value: Any, *, workspace_id: str | None = None, config_name: str | None = None
) -> str:
    """`set_key_value` without blocking."""
    return await in_thread(set_key_value, key, value, workspace_id=workspace_id, config_name=config_name)


async def get_key_value_async(
    key: str, *, workspace_id: str | None = None, config_name: str | None = None
) -> Any:
    """`get_key_value` without blocking."""
    return await in_thread(get_key_value, key, workspace_id=workspace_id, config_name=config_name)


async def delete_key_async(
    key: str, *, workspace_id: str | None = None, config_name: str | None = None
) -> bool:
    """`delete_key` without blocking."""
    return await in_thread(delete_key, key, workspace_id=workspace_id, config_name=config_name)


async def list_keys_async(*, workspace_id: str | None = None, config_name: str | None = None) -> list[str]:
    """`list_keys` without blocking."""
    return await in_thread(list_keys, workspace_id=workspace_id, config_name=config_name)


def local_store() -> FileValues | None:
    """Return the store in the file that RUNKEYS_KV_FILE names, or None."""
    named = os.environ.get(FILE_VARIABLE)
    return FileValues(Path(named)) if named else None


def _store(workspace_id: str | None, config_name: str | None) -> Store:
    local = local_store() if config_name is None else None
    if local is not None:
        return local
    found = config.resolve(config_name) if environment.is_local() else config.of_pod()
    return KeyValues(found.client(workspace_id))


def _unknown(key: str, where: str) -> ValueError:
    return ValueError(f"there is no key {key!r} in {where}")


def _id_of(place: str, key: str) -> str:
    return str(uuid.uuid5(_ID, f"{place}/{key}"))


def _entry(key: str, value: Any) -> dict[str, str]:
    """Return the stored form of a pair. Raises ValueError if it cannot be stored."""
    _check(key)
    try:
        size = len(json.dumps(value, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise ValueError(f"the value of key {key!r} is not JSON: {error}") from None
    if size > MAX_VALUE:
        raise ValueError(
            f"the value of key {key!r} has {size} bytes as JSON; at most {MAX_VALUE} can be stored"
        )
    return {_field(key): json.dumps({"key": key, "value": value}, separators=(",", ":"))}


def _parsed(stored: str) -> dict[str, Any]:
    try:
        found = documents.read(stored)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"key", "value"} <= set(found):  # a later version may say more
        raise Invalid(f"ConfigMap {CONFIG_MAP} holds something that runkeys did not write; remove it")
    return found


def _field(key: str) -> str:
    """Return the key in the ConfigMap, which allows only few characters."""
    if _PLAIN.fullmatch(key) and not key.startswith(_HASHED):
        return key
    return _HASHED + hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _check(key: object) -> None:
    if not isinstance(key, str) or not key:
        raise ValueError("a key is a str of at least one character")
