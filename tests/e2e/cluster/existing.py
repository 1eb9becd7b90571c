"""The provider ``existing``: a cluster that somebody else runs, used only when its context is named."""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path

import yaml
from kubernetes.config import kube_config

from . import build
from .base import Cluster, ClusterError

CONTEXT_VARIABLE = "RUNKEYS_E2E_CONTEXT"


class ExistingCluster(Cluster):
    """Only what its API server offers; nothing is started, stopped or looked into."""

    provider = "existing"

    @classmethod
    def use(cls, context: str) -> ExistingCluster:
        """Take the cluster of this kubeconfig context. Raises ClusterError when there is no such context."""
        build.ensure(build.CLIENT_GROUPS)
        merger = kube_config.KubeConfigMerger(  # type: ignore[no-untyped-call]
            os.environ.get("KUBECONFIG") or kube_config.KUBE_CONFIG_DEFAULT_LOCATION
        )
        config = None if merger.config is None else merger.config.value
        if config is None or context not in [entry["name"] for entry in config["contexts"]]:
            raise ClusterError(
                f"{CONTEXT_VARIABLE} names {context!r}, and no kubeconfig has a context of that name."
            )
        cluster = cls(context)
        # A copy in which this context is the current one: the user's own choice stays as it is.
        cluster.kubeconfig.touch(mode=0o600)
        cluster.kubeconfig.write_text(yaml.safe_dump({**config, "current-context": context}))
        return cluster

    @property
    def kubeconfig(self) -> Path:
        return self.scratch / "kubeconfig"

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="runkeys-")

    @property
    def scratch(self) -> Path:
        return Path(self._folder.name)

    def load_image(self, archive: Path) -> None:
        raise self._not_offered(f"load the image {archive.name}")

    def stop(self) -> None:
        self._folder.cleanup()
