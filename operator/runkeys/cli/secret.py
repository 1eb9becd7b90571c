"""`runkeys secret`."""

from __future__ import annotations

import sys

import click

from runkeys._text.words import line, shell
from runkeys.cli._framework import Function, Group, Settings, command
from runkeys.cli._input import read_value
from runkeys.cli._output import NOTHING, print_object, print_table
from runkeys.cli._printing import echo
from runkeys.client.binding_secrets import BindingSecrets, check_name
from runkeys.names import is_variable_name
from runkeys.planning.access import USE
from runkeys.problems import Usage

_READY = {True: "True", False: "False", None: "Unknown"}


def _binding(function: Function) -> Function:
    return click.option("--binding", metavar="NAME", help="A shared binding. Default: your personal one.")(
        function
    )


@click.group(cls=Group)
def secret() -> None:
    """Set, list, print and delete your own secrets, or those of a binding.

    Your own secrets are for you in one namespace: nobody else can write, use or read them.
    """


@command(name="set")
@click.argument("name")
@_binding
@click.option("--from-file", type=click.Path(), help="Read the value from this file, byte for byte.")
def set_secret(settings: Settings, name: str, binding: str | None, from_file: str | None) -> None:
    """Set secret NAME to a value from a prompt, standard input or a file. The value is sealed before it is sent."""
    check_name(name)  # first: nobody types a password to learn then that its name cannot be used
    vault = BindingSecrets(settings.client(), binding)
    vault.set(name, read_value(f"secret {name}", from_file), settings.say)
    settings.say(f"secret {name} is set in {vault.what}")
    if not is_variable_name(name):
        settings.say(
            f"In a run: {shell('--secret', f'VARIABLE={name}')}, or under a task's secrets with `env` or `file`"
        )


@command(name="list")
@_binding
@click.option("--shared", is_flag=True, help="List the secrets of all shared bindings of the namespace.")
def list_secrets(settings: Settings, binding: str | None, *, shared: bool) -> None:
    """List the secrets' names, never their values."""
    if shared:
        if binding is not None:
            raise Usage("give either --binding, or --shared for all shared bindings")
        _list_shared(settings)
        return
    vault = BindingSecrets(settings.client(), binding)
    found = vault.items()
    if settings.output in ("json", "yaml"):
        items = [
            {
                "name": i.name,
                "from": i.origin,
                "ready": i.ready,
                "reason": i.reason,
                "changed": i.changed or None,
            }
            for i in found
        ]
        print_object(settings, {"items": items})
    elif settings.output == "name":
        for item in found:
            echo(item.name)
    elif found:
        rows = [
            [item.name, item.origin, _READY[item.ready], item.reason or NOTHING, item.changed or NOTHING]
            for item in found
        ]
        print_table(settings, ["NAME", "FROM", "READY", "REASON", "CHANGED"], rows)
        settings.say(f"in {vault.what}")
    else:
        settings.say(f"no secrets in {vault.what}")


def _list_shared(settings: Settings) -> None:
    client = settings.client()
    bindings = [item for item in client.bindings() if item.spec.owner is None]
    rows = []
    for item in sorted(bindings, key=lambda item: item.metadata.name):
        name = item.metadata.name
        usable = client.may(USE, item.CRD.plural, name=name)
        rows += [(name, usable, secret) for secret in BindingSecrets(client, name).items()]
    if settings.output in ("json", "yaml"):
        items = [{"binding": name, "name": secret.name, "use": usable} for name, usable, secret in rows]
        print_object(settings, {"items": items})
    elif settings.output == "name":
        for name, _, secret in rows:
            echo(f"{name}/{secret.name}")
    elif rows:
        cells = [
            [name, secret.name, secret.origin, _READY[secret.ready], "yes" if usable else "no"]
            for name, usable, secret in rows
        ]
        print_table(settings, ["BINDING", "NAME", "FROM", "READY", "YOU MAY USE IT"], cells)
        if not all(usable for _, usable, _ in rows):
            settings.say(f"who may use a binding: {shell('runkeys', 'who-can', 'use')} BINDING")
    else:
        settings.say(f"no secrets in shared bindings of namespace {client.namespace}")


@command(name="get")
@click.argument("name")
@_binding
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
def get_secret(settings: Settings, name: str, binding: str | None, *, yes: bool) -> None:
    """Print the value of secret NAME. You need the right `reveal`, and an Event records that you read the value."""
    if sys.stdout.isatty() and not yes:
        if not sys.stdin.isatty():
            raise Usage("give --yes to print a value on a terminal")
        click.confirm(f"Print the value of {line(name)} on this screen?", abort=True, err=True)
    value = BindingSecrets(settings.client(), binding).get(name)
    sys.stdout.buffer.write(value)
    if sys.stdout.isatty():
        echo()


@command(name="delete")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_binding
def delete_secret(settings: Settings, names: tuple[str, ...], binding: str | None) -> None:
    """Delete secrets. Runs that start later do not get them any more."""
    vault = BindingSecrets(settings.client(), binding)
    for name in names:
        vault.delete(name)
        settings.say(f"secret {name} is deleted from {vault.what}")


for _command in (set_secret, list_secrets, get_secret, delete_secret):
    secret.add_command(_command)
