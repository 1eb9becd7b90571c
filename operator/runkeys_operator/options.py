"""Options of the operator's process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runkeys.planning.requirements import UNSEAL_RESOURCES
from runkeys_operator.leader_election import LeaseName


@dataclass(frozen=True)
class Options:
    """Options of the operator.

    :ivar namespaces: namespaces to watch; empty: all.
    :ivar health_port: port for probes and metrics; 0: none.
    :ivar resync_seconds: seconds between two resyncs.
    :ivar lease: Lease for leader election; None: there is no other operator.
    :ivar identity: holder of the Lease; empty: a unique identity is generated.
    :ivar operator_namespace: namespace with the sealing keys; None: no sealed value can be opened.
    :ivar key_rotation_days: days after which a new key is created; 0: only by command.
    :ivar sealed_delivery_image: image of the init container that unseals values; empty disables sealed delivery.
    :ivar pods: answer pods that ask for secrets themselves; needs sealed delivery.
    :ivar store_audiences: audiences of SecretStores that it may request tokens for; empty: no store is read.
    :ivar store_providers: folder with the sockets of providers of the Secrets Store CSI driver; None: there are none.
    :ivar store_tokens: folder with the operator's own tokens for these audiences; None: no lease is opened.
    :ivar sealed_delivery_resources: requests and limits of that container.
    """

    namespaces: tuple[str, ...] = ()
    kubeconfig: str | None = None
    context: str | None = None
    health_port: int = 8080
    workers: int = 4
    resync_seconds: float = 30.0
    lease: LeaseName | None = None
    lease_seconds: int = 15
    identity: str = ""
    operator_namespace: str | None = None
    key_rotation_days: int = 30
    sealed_delivery_image: str = ""
    pods: bool = False
    store_audiences: tuple[str, ...] = ()
    store_providers: Path | None = None
    store_tokens: Path | None = None
    sealed_delivery_resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: UNSEAL_RESOURCES
    )
