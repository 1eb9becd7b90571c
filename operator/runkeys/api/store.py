"""SecretStore: a store of secrets outside the cluster, such as Vault or OpenBao, and the namespaces that may use it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from runkeys.api.common import (
    API_VERSION,
    ApiModel,
    CrdInfo,
    LabelSelector,
    ObjectMeta,
    PrinterColumn,
    StatusModel,
    cel,
    list_map,
)
from runkeys.api.conditions import Condition

JWT, KUBERNETES = "jwt", "kubernetes"

STORE_PATH = cel(
    (
        r"self.matches('^[^/?#%\\s\\\\]+(/[^/?#%\\s\\\\]+)*$') && !self.matches('(^|/)[.]{1,2}(/|$)')",
        "a path has no '/' at either end, no '//', no segment '.' or '..', and none of '?', '#', '%', '\\' or spaces",
    )
)

STORE_ROLE = cel(
    (
        "self.matches('^[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?$')",
        "a role has letters, digits, '_', '-' and '.', with a letter, digit or '_' at the ends",
    )
)

AUDIENCE = r"[-A-Za-z0-9._~:/]{1,128}"

_AUDIENCE = cel(
    (
        "self.matches('^[-A-Za-z0-9._~:/]+$')",
        "an audience has letters, digits and - . _ ~ : /",
    ),
    (
        "!self.contains('kubernetes.default')",
        "this is an audience of the API server itself, and the store could then act as the pod; choose one for the"
        " store alone",
    ),
)


class StoreAuth(ApiModel):
    """How pods log in to the store."""

    method: str = Field(
        description="jwt: the store verifies the token itself, with a public key of the cluster. kubernetes: the store"
        " asks the API server whether the token is valid.",
        json_schema_extra=cel(
            ("self in ['jwt', 'kubernetes']", "method must be jwt or kubernetes"),
        ),
    )
    mount: str = Field(
        description="Path at which the auth method is enabled in the store, without auth/, e.g. jwt.",
        min_length=1,
        max_length=128,
        json_schema_extra=STORE_PATH,
    )
    audience: str = Field(
        description="Audience of the tokens that the operator requests for pods. It must be one that the operator may"
        " request (stores.audiences of the chart), and one that the store's roles demand.",
        min_length=1,
        max_length=128,
        json_schema_extra=_AUDIENCE,
    )


class StoreRevoker(ApiModel):
    """The operator's own login, with which it revokes leases after their pods have ended."""

    role: str = Field(
        description="Role in the store for the operator's own service account. Its policy has update on"
        " auth/token/revoke-accessor, auth/token/lookup-accessor and sys/leases/lookup, and reads no secret.",
        min_length=1,
        max_length=128,
        json_schema_extra=STORE_ROLE,
    )


class VaultStore(ApiModel):
    """A Vault or OpenBao server."""

    address: str = Field(
        description="Address of the server, e.g. https://bao.example:8200.",
        min_length=1,
        max_length=512,
        json_schema_extra=cel(
            (
                "self.matches('^https://(\\\\[[0-9a-fA-F:.]+\\\\]|[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?)"
                "(:[0-9]{1,5})?$')",
                "address must be https:// with a host and perhaps a port, and no path or user,"
                " e.g. https://bao.example:8200",
            )
        ),
    )
    ca_bundle: str | None = Field(
        default=None,
        description="Certificates, in PEM, of the authorities that the server's certificate is verified with. Unset:"
        " those of the operator's image.",
        min_length=1,
        max_length=262_144,
        json_schema_extra=cel(
            (
                "self.contains('-----BEGIN CERTIFICATE-----')",
                "caBundle must be PEM text with at least one -----BEGIN CERTIFICATE-----",
            ),
            ("!self.contains('PRIVATE KEY')", "caBundle holds a private key; give certificates only"),
        ),
    )
    namespace: str | None = Field(
        default=None,
        description="Namespace inside the store (OpenBao, Vault Enterprise), for logins and reads.",
        min_length=1,
        max_length=256,
        json_schema_extra=STORE_PATH,
    )
    auth: StoreAuth = Field(description="How pods log in to the store.")
    revoker: StoreRevoker | None = Field(
        default=None,
        description="The operator's own login, for leases. Unset: bindings cannot use leases of this store.",
    )


PROVIDER = "[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?"
"""Names of providers: of a container and of a socket."""

POD_ATTRIBUTES = "csi.storage.k8s.io/"
"""Beginning of the parameters that say for which pod a provider reads."""


class CsiStore(ApiModel):
    """A store that a provider of the Secrets Store CSI driver reads, such as AWS's, Azure's or Google's."""

    provider: str = Field(
        description="Name of the provider, e.g. aws. It must be one that runs beside the operator (stores.providers of"
        " the chart).",
        min_length=1,
        max_length=30,
        json_schema_extra=cel(
            (
                f"self.matches('^{PROVIDER}$')",
                "a provider's name has lower-case letters, digits and '-', with a letter or digit at the ends",
            )
        ),
    )
    audience: str = Field(
        description="Audience of the tokens that the operator requests for pods, and gives to the provider, e.g."
        " sts.amazonaws.com. It must be one that the operator may request (stores.audiences of the chart).",
        min_length=1,
        max_length=128,
        json_schema_extra=_AUDIENCE,
    )
    parameters: dict[str, Annotated[str, Field(max_length=8192)]] = Field(
        description="Parameters for the provider, as in a SecretProviderClass of it. They must ask for one object."
        " {{ path }} stands for the path of a binding's entry, and {{ role }} for its role.",
        min_length=1,
        max_length=32,
        json_schema_extra=cel(
            (
                "self.all(k, self[k].matches('^([^{]|[{][^{]|[{][{] *(path|role) *[}][}])*[{]?$'))",
                "parameters can only have {{ path }} and {{ role }}",
            ),
            (
                "self.exists(k, self[k].matches('[{][{] *path *[}][}]'))",
                "one of the parameters must have {{ path }}, or all entries would read the same",
            ),
            (
                f"self.all(k, !k.startsWith('{POD_ATTRIBUTES}'))",
                f"parameters of {POD_ATTRIBUTES} say for which pod the provider reads, and the operator sets them",
            ),
        ),
    )


class SecretStoreSpec(ApiModel):
    """Specification of a SecretStore."""

    model_config = ConfigDict(
        json_schema_extra=cel(
            ("has(self.vault) != has(self.csi)", "a SecretStore has exactly one kind: give vault or csi")
        )
    )

    vault: VaultStore | None = Field(default=None, description="A Vault or OpenBao server.")
    csi: CsiStore | None = Field(
        default=None,
        description="A store that a provider of the Secrets Store CSI driver reads, e.g. AWS's, Azure's or Google's.",
    )
    namespaces: LabelSelector = Field(
        description="Selects the namespaces whose bindings may use this store, by their labels. `namespaces: {}`"
        " selects all.",
    )

    @property
    def audience(self) -> str:
        """Audience of the tokens that pods log in with. Empty if the store is of a kind that is not known."""
        if self.vault is not None:
            return self.vault.auth.audience
        return self.csi.audience if self.csi is not None else ""

    @property
    def revoker(self) -> StoreRevoker | None:
        """The operator's own login, for leases; None if the store has none, or is of a kind without leases."""
        return self.vault.revoker if self.vault is not None else None


class SecretStoreStatus(StatusModel):
    """Observed state of a SecretStore."""

    observed_generation: int | None = Field(
        default=None, description="metadata.generation that this status was computed from."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Condition types: Ready. A store with spec.vault.revoker also has LeasesReady: whether the operator"
        " can revoke leases of it.",
        max_length=16,
        json_schema_extra=list_map("type"),
    )


class SecretStore(ApiModel):
    """A store of secrets outside the cluster, and the namespaces that may use it."""

    CRD: ClassVar[CrdInfo] = CrdInfo(
        plural="secretstores",
        singular="secretstore",
        short_names=("rks",),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Address", ".spec.vault.address"),
            PrinterColumn("Provider", ".spec.csi.provider"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].reason", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", type="date"),
        ),
        namespaced=False,
    )

    api_version: str = API_VERSION
    kind: str = "SecretStore"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: SecretStoreSpec = Field(description="Desired state.")
    status: SecretStoreStatus = Field(
        default_factory=SecretStoreStatus,
        description="Observed state, written by the operator.",
        json_schema_extra={"default": {"observedGeneration": -1}},
    )

    @classmethod
    def parse(cls, raw: dict[str, Any]) -> SecretStore:
        """Read an object as the API server sends it."""
        return cls.model_validate(raw)
