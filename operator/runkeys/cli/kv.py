"""`runkeys kv`."""

from __future__ import annotations

import json
import sys

import click

from runkeys.cli._framework import Group, Settings, command
from runkeys.cli._output import print_object
from runkeys.cli._printing import echo
from runkeys.kv import KeyValues, Store, local_store
from runkeys.problems import Invalid, NotFound


@click.group(cls=Group)
def kv() -> None:
    """Store JSON values by key, for use by later runs. Not for secrets: users who may read ConfigMaps can read them.

    The values are in the ConfigMap `runkeys-kv` of the namespace, or in the file that RUNKEYS_KV_FILE names. The SDK's
    `runkeys.kv` uses the same.
    """


def _store(settings: Settings) -> Store:
    local = local_store() if settings.context is None and settings.kubeconfig is None else None
    return local or KeyValues(settings.client())


@command(name="set")
@click.argument("key")
@click.argument("value", required=False)
def set_value(settings: Settings, key: str, value: str | None) -> None:
    """Set KEY to VALUE. VALUE is JSON: a number, "text" in quotes, a list … Without VALUE, read standard input."""
    text = sys.stdin.read() if value is None else value
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise Invalid(
            f"the value of key {key!r} is not JSON: {error}. Text needs quotes, in a shell as: '\"text\"'"
        ) from None
    try:
        _store(settings).set(key, parsed)
    except ValueError as error:
        raise Invalid(str(error)) from None
    settings.say(f"key {key} is set")


@command(name="get")
@click.argument("key")
def get_value(settings: Settings, key: str) -> None:
    """Print the value of KEY as JSON."""
    try:
        value = _store(settings).get(key)
    except ValueError as error:
        raise NotFound(str(error)) from None
    echo(json.dumps(value, indent=2, ensure_ascii=False))


@command(name="list")
def list_keys(settings: Settings) -> None:
    """List keys."""
    store = _store(settings)
    found = store.keys()
    if settings.output in ("json", "yaml"):
        print_object(settings, {"items": found})
        return
    for key in found:
        echo(key)
    if not found:
        settings.say(f"no keys in {store.where}")


@command(name="delete")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
def delete_keys(settings: Settings, keys: tuple[str, ...]) -> None:
    """Delete keys."""
    store = _store(settings)
    for key in keys:
        try:
            store.delete(key)
        except ValueError as error:
            raise NotFound(str(error)) from None
        settings.say(f"key {key} is deleted")


for _command in (set_value, get_value, list_keys, delete_keys):
    kv.add_command(_command)
