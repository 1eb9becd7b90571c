"""`python -m runkeys_operator keys …`: administration of the sealing keys, from inside the operator's pod.

Users who may run a command in that pod can read the keys anyway, so these commands need no further right:
`kubectl -n runkeys-system exec deploy/runkeys -- python -m runkeys_operator keys list`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import click
import yaml

from runkeys import sealing
from runkeys.api import SecretBinding, WorkflowRun
from runkeys.cli._printing import data, echo
from runkeys.planning.requirements import SealedValue, source_of
from runkeys.sealing import Keyring
from runkeys_operator.errors import ApiError, LoginError
from runkeys_operator.kube import BINDINGS, RUNS, Kube, credentials
from runkeys_operator.kube.login import Login
from runkeys_operator.options import Options
from runkeys_operator.values.keys import Keys, KeysError, StoredKey, an_older

Result = TypeVar("Result")


@click.group()
def keys() -> None:
    """List, rotate and retire sealing keys, and reseal values of older keys."""


@keys.command("list")
@click.pass_obj
def list_keys(options: Options) -> None:
    """List all keys, newest first, and how many values still need each key."""

    async def work(kube: Kube, ring: Keys) -> tuple[list[StoredKey], dict[str, list[str]]]:
        return await ring.stored(), await _users(kube, options.namespaces)

    stored, users = _run(options, work)
    echo(f"{'KEY':<18}{'CREATED':<22}{'NEEDED BY':<11}FINGERPRINT")
    for key in reversed(stored):
        made, needed = f"{key.made:%Y-%m-%dT%H:%M:%SZ}", len(users.get(key.id, []))
        echo(f"{key.id:<18}{made:<22}{needed:<11}{key.private.public.fingerprint}")
    for key_id in sorted(set(users) - {key.id for key in stored}):
        echo(f"{key_id:<18}{'not here':<22}{len(users[key_id]):<11}{', '.join(users[key_id])}")


@keys.command()
@click.pass_obj
def rotate(options: Options) -> None:
    """Create a new key. Older keys still open the values that were sealed with them."""

    async def work(_: Kube, ring: Keys) -> StoredKey:
        return await ring.rotate()

    key = _run(options, work)
    echo(f"key {key.id} created; fingerprint {key.private.public.fingerprint}")


@keys.command()
@click.argument("key_id")
@click.option(
    "--force",
    is_flag=True,
    help="Delete the key even if values still need it. They can then never be opened again.",
)
@click.pass_obj
def retire(options: Options, key_id: str, *, force: bool) -> None:
    """Delete an older key, unless a binding or a run still needs it."""

    async def work(kube: Kube, ring: Keys) -> list[str]:
        an_older(await ring.stored(), key_id)
        needed = (await _users(kube, options.namespaces)).get(key_id, [])
        if not needed or force:
            await ring.retire(key_id)
        return needed

    needed = _run(options, work)
    if needed and not force:
        lines = "\n".join(f"  {where}" for where in needed)
        raise click.ClickException(
            f"key {key_id} is still needed; seal these again first (keys reseal), or let them finish:\n{lines}"
        )
    echo(f"key {key_id} is deleted")


@keys.command()
@click.argument("file", type=click.File("r"), default="-")
@click.pass_obj
def reseal(options: Options, file: Any) -> None:
    """Print FILE (default: standard input) with the values of its SecretBindings sealed again with the newest key.

    Everything else in the file stays exactly as it is, and each value stays bound to its own place.
    """
    text: str = file.read()

    async def work(_: Kube, ring: Keys) -> Keyring:
        stored = await ring.stored()
        if not stored:
            raise KeysError("there is no sealing key yet; the operator creates one when it starts")
        newest, *older = [key.private for key in reversed(stored)]
        return Keyring(newest, older)

    keyring = _run(options, work)
    try:
        documents = [item for item in yaml.safe_load_all(text) if isinstance(item, dict)]
    except yaml.YAMLError:
        raise click.ClickException("this is not YAML; give a manifest of a SecretBinding") from None
    bindings = [item for document in documents for item in _bindings_in(document)]
    if not bindings:
        raise click.ClickException("there is no SecretBinding in it")
    for where, sealed in (found for binding in bindings for found in _sealed_in(binding)):
        try:
            text = text.replace(sealed.text, sealing.reseal(sealed.text, sealed.context, keyring))
        except sealing.SealError as error:
            raise click.ClickException(f"{where}: {error}") from None
    data(text)


def _bindings_in(document: dict[str, Any]) -> list[SecretBinding]:
    items = document.get("items") if document.get("kind") in ("List", "SecretBindingList") else [document]
    found = []
    for item in items or []:
        if item.get("kind") == "SecretBinding":
            if not (item.get("metadata") or {}).get("namespace"):
                raise click.ClickException(
                    "metadata.namespace of a SecretBinding is missing, and sealed values are bound to it; write it"
                )
            found.append(SecretBinding.parse(item))
    return found


def _sealed_in(binding: SecretBinding) -> list[tuple[str, SealedValue]]:
    namespace, name = binding.metadata.namespace, binding.metadata.name
    entries = [entry for entry in binding.spec.secrets if entry.sealed is not None]
    sources = [(entry.name, source_of(namespace, binding, entry)) for entry in entries]
    return [
        (f"SecretBinding {namespace}/{name}, entry {entry!r}", source)
        for entry, source in sources
        if isinstance(source, SealedValue)
    ]


async def _users(kube: Kube, namespaces: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the values that are sealed with each key, by the key's ID."""
    users: dict[str, list[str]] = {}

    def note(text: str, where: str) -> None:
        try:
            users.setdefault(sealing.key_id_of(text), []).append(where)
        except sealing.SealError:
            return  # no key opens it, and its status says so

    for namespace in namespaces or (None,):
        for raw in await kube.list(BINDINGS, namespace):
            for where, sealed in _sealed_in(SecretBinding.parse(raw)):
                note(sealed.text, where)
        for raw in await kube.list(RUNS, namespace):
            run = WorkflowRun.parse(raw)
            for field, text in run.spec.sealed_input.items() if not run.status.finished else ():
                note(text, f"WorkflowRun {run.key}, sealedInput {field!r}")
    return users


def _run(options: Options, work: Callable[[Kube, Keys], Awaitable[Result]]) -> Result:
    async def inside() -> Result:
        session = Login(credentials.find(options.kubeconfig, options.context))
        try:
            kube = Kube(session)
            return await work(kube, Keys(kube, options.operator_namespace))
        finally:
            await session.close()

    try:
        return asyncio.run(inside())
    except (KeysError, ApiError, LoginError) as error:
        echo(f"Error: {error}", err=True)
        sys.exit(1)
