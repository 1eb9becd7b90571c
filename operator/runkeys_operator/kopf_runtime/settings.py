"""The settings of kopf: above all what it must leave alone."""

from __future__ import annotations

from typing import Any

from runkeys_operator.kopf_runtime.kopf_module import kopf
from runkeys_operator.kube import RUNS
from runkeys_operator.kube.selectors import OPEN


def settings() -> kopf.OperatorSettings:
    """The settings of kopf, reduced to what Runkeys uses: it watches, and writes nothing to the cluster."""
    found = kopf.OperatorSettings()
    found.scanning.disabled = True  # no rights on namespaces and CRDs
    found.posting.enabled = False
    found.persistence.diffbase_storage = _NoDiffBase()
    found.persistence.progress_storage = _NoProgress()
    found.process.ultimate_exiting_timeout = 15
    found.queueing.idle_timeout = 1.0
    found.networking.request_timeout = 15
    # Missing rights were found before the start, so these are for a server that is away for a minute.
    found.networking.error_backoffs = [0.2, 0.5, 1, 2, *[3] * 20]
    found.watching.server_timeout = 300
    found.watching.client_timeout = 310
    found.watching.chunk_size = 500
    # A run that finishes leaves the watch, and is never listed again, however many there are.
    found.watching.field_selectors[RUNS.group, RUNS.version, RUNS.plural] = OPEN
    return found


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: kopf's own would copy whole objects into their annotations."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing: there are no handlers whose progress would count."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass

    def purge(self, **_: Any) -> None:
        pass

    def touch(self, **_: Any) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
