"""Field selectors: the API server filters, and never sends the rest."""

from __future__ import annotations

from runkeys.api.run_status import FINAL_PHASES
from runkeys.names import SIGNER

OPEN = ",".join(f"status.phase!={phase}" for phase in FINAL_PHASES)
"""Runs that have not finished. The watch of runs has it too: a run that finishes leaves it."""

BOUND = "spec.nodeName!="
"""Pods that have a node: before that there is nothing to do for them."""

# A field that is not set is selected by the empty text.
LIVE = "status.live!=,status.live!=0"
"""Runs with Secrets that may still exist."""

EXPIRES = ",".join(
    (
        "spec.ttlSecondsAfterFinished!=",
        *(f"status.phase!={phase}" for phase in ("", "Pending", "Running", "Suspended")),
    )
)
"""Finished runs that have a time to live."""

OF_SIGNER = f"spec.signerName={SIGNER}"
"""PodCertificateRequests for sealed delivery."""

OWNER = "spec.owner.username"
"""The field by which personal bindings are found."""


def escaped(value: str) -> str:
    """``value`` as a field selector takes it."""
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
