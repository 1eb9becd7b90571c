"""`runkeys config`."""

from __future__ import annotations

import click

from runkeys._text.words import line
from runkeys.cli._framework import Group, Settings, command
from runkeys.cli._output import print_object, print_table
from runkeys.cli._printing import echo
from runkeys.client.trusted_keys import TrustedKeys
from runkeys.config import config_folder
from runkeys.problems import Denied, Problem


@click.group(cls=Group)
def config() -> None:
    """Show the configuration, and trust a cluster's key."""


@command(name="show")
def show_config(settings: Settings) -> None:
    """Print the configuration folder, the cluster that commands and the SDK use, and the trusted keys."""
    trusted_keys = TrustedKeys()
    used = _used(settings)
    if settings.output in ("json", "yaml"):
        folder = str(config_folder())
        print_object(settings, {"folder": folder, "used": used, "trustedKeys": trusted_keys.all()})
        return
    echo(f"folder: {config_folder()}")
    for key, value in used.items():
        if value:
            echo(line(f"{key}: {value}"))
    rows = [[cluster, item] for cluster, listed in trusted_keys.all().items() for item in listed]
    if rows:
        print_table(settings, ["CLUSTER", "TRUSTED KEY"], rows)


def _used(settings: Settings) -> dict[str, str]:
    """Return which cluster is used and why, or why there is none."""
    try:
        found = settings.config()
        client = found.client()
    except Problem as error:
        return {"cluster": "", "problem": str(error)}
    return {
        "cluster": client.server,
        "chosen by": found.source,
        "context": found.context or "",
        "namespace": client.namespace,
        "operator namespace": client.operator_namespace,
    }


@command(name="trust-key")
@click.argument("fingerprint")
def trust_key(settings: Settings, fingerprint: str) -> None:
    """Trust the cluster's public key if it has this FINGERPRINT.

    An administrator of the operator sees the fingerprint with `python -m runkeys_operator keys list` in the
    operator's pod.
    """
    client = settings.client()
    key = client.published_key()
    if fingerprint.strip().lower() != key.fingerprint:
        raise Denied(
            f"the public key of {client.server} has another fingerprint, so it is not trusted:\n  {key.fingerprint}"
        )
    TrustedKeys().trust(client.server, key)
    settings.say(f"key {key.key_id} of {client.server} is trusted")


config.add_command(show_config)
config.add_command(trust_key)
