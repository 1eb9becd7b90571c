"""What reading from SecretStores needs in a namespace and of an entry. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runkeys._text.words import kubectl
from runkeys.api import SecretStore
from runkeys.planning.access import subject_of
from runkeys.planning.refusal import Reason
from runkeys.planning.requirements import StoreValue

_PLACE = re.compile(r"\{\{ *(path|role) *\}\}")

_PATH = re.compile(r"[-A-Za-z0-9/_+=.@:~]+")
"""Paths that end no text they stand in, whether it is YAML or JSON, with quotes or without."""


def token_grant(namespace: str, account: str, operator: str) -> str:
    """The command that lets the operator request tokens of a service account, for the pods that run as it.

    :param operator: username of the operator.
    """
    role = f"runkeys-store-{account}"
    allow = ("create", "role", role, "--verb=create", "--resource=serviceaccounts/token")
    bind = kubectl(namespace, "create", "rolebinding", role, f"--role={role}")
    return f"{kubectl(namespace, *allow, f'--resource-name={account}')} && {bind} {subject_of(operator)}"


def filled(parameters: Mapping[str, str], path: str, role: str) -> dict[str, str]:
    """The parameters of a provider for one entry. ``path`` must be one that :func:`misfit` lets through."""
    values = {"path": path, "role": role}
    return {key: _PLACE.sub(lambda found: values[found[1]], text) for key, text in parameters.items()}


def misfit(store: SecretStore, source: StoreValue) -> tuple[Reason, str] | None:
    """Why an entry cannot be one of this kind of store, whatever is in it; None if it can."""
    kind, name = store.spec, store.metadata.name
    if kind.csi is None:
        missing = [field for field, value in (("role", source.role), ("field", source.field)) if not value]
        if missing:
            return (
                Reason.BINDING_INVALID,
                f"SecretStore {name} is a Vault or OpenBao server, whose entries name {' and '.join(missing)} too",
            )
        return None
    if source.leased:
        return (
            Reason.LEASES_UNAVAILABLE,
            f"SecretStore {name} is read by provider {kind.csi.provider}, and what it opens cannot be revoked; name the"
            " path under value instead of lease",
        )
    if _PATH.fullmatch(source.path) is None:
        return (
            Reason.BINDING_INVALID,
            f"path {source.path} has characters that could change the parameters of SecretStore {name}; a path there"
            " has letters, digits and / _ + = . @ : ~ -",
        )
    if not source.role and any(found[1] == "role" for found in _places(kind.csi.parameters)):
        return (
            Reason.BINDING_INVALID,
            f"the parameters of SecretStore {name} need role, which the entry lacks",
        )
    return None


def _places(parameters: Mapping[str, str]) -> list[re.Match[str]]:
    return [found for text in parameters.values() for found in _PLACE.finditer(text)]
