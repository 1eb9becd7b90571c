"""How the operator is to run."""

from __future__ import annotations

from dataclasses import dataclass

from runkeys_operator.leader_election import LeaseName


@dataclass(frozen=True)
class Options:
    """How to run. No `namespaces`: all. `health_port` 0: no probes. `resync_seconds`: between two looks at everything.

    No `lease`: there is no other operator. `identity` empty: one that nobody else ever has.
    `operator_namespace`: where the sealing keys are; None: nothing sealed can be opened. `key_rotation_days` 0: keys
    are made by command only. `sealed_delivery_image`: what opens in pods what is delivered sealed; empty: nothing is.
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
