"""What reading from SecretStores needs in a namespace. Pure."""

from __future__ import annotations

from runkeys._text.words import kubectl
from runkeys.planning.access import subject_of


def token_grant(namespace: str, account: str, operator: str) -> str:
    """The command that lets the operator request tokens of a service account, for the pods that run as it.

    :param operator: username of the operator.
    """
    role = f"runkeys-store-{account}"
    allow = ("create", "role", role, "--verb=create", "--resource=serviceaccounts/token")
    bind = kubectl(namespace, "create", "rolebinding", role, f"--role={role}")
    return f"{kubectl(namespace, *allow, f'--resource-name={account}')} && {bind} {subject_of(operator)}"
