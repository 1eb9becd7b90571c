"""The account that the policies treat as the operator, and the names of the operator and its policies."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runkeys.names import SERVICE_ACCOUNT


@dataclass(frozen=True)
class Account:
    """The account that the policies treat as the operator.

    :ivar username: as the API server knows it. :ivar namespace: where its sealing keys are.
    :ivar audiences: of SecretStores that it may request tokens of pods for; none: it uses no store.
    """

    username: str
    namespace: str
    audiences: tuple[str, ...] = ()

    @classmethod
    def service_account(cls, namespace: str, name: str, audiences: tuple[str, ...] = ()) -> Account:
        """A service account of the operator's own namespace."""
        return cls(f"{SERVICE_ACCOUNT}{namespace}:{name}", namespace, audiences)

    @staticmethod
    def home_of(username: str) -> str:
        """The namespace of a service account; empty for any other user."""
        return (
            username.removeprefix(SERVICE_ACCOUNT).partition(":")[0]
            if username.startswith(SERVICE_ACCOUNT)
            else ""
        )

    @property
    def suffix(self) -> str:
        """Suffix of the names of this operator's policies."""
        if self.username.startswith(SERVICE_ACCOUNT):
            return self.username.removeprefix(SERVICE_ACCOUNT).replace(":", ".")
        return re.sub(r"[^a-z0-9]+", "-", self.username.lower()).strip("-")

    def name_of(self, policy: str) -> str:
        """Name of a policy, and of its binding: each operator has its own."""
        return f"runkeys-{policy}.{self.suffix}"
