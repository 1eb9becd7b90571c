"""The provider ``existing``: a cluster that somebody else runs, used only when its context is named."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cached_property
from pathlib import Path

from testing.cluster import build
from testing.cluster.base import Cluster, ClusterError

CONTEXT_VARIABLE = "RUNKEYS_E2E_CONTEXT"


class ExistingCluster(Cluster):
    """Only what its API server offers; nothing is started, stopped or looked into."""

    provider = "existing"

    @classmethod
    def use(cls, context: str) -> ExistingCluster:
        """Take the cluster of this kubeconfig context. Raises ClusterError when there is no such context."""
        build.ensure(build.CLIENT_GROUPS)
        # A copy in which this context is the only one: the user's own choice stays as it is.
        view = ("config", "view", "--raw", "--minify", "--flatten", f"--context={context}", "--output=json")
        done = subprocess.run(
            [build.program("kubectl"), *view], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise ClusterError(f"{CONTEXT_VARIABLE} names {context!r}: {done.stderr.strip()}")
        cluster = cls(context)
        cluster.kubeconfig.touch(mode=0o600)
        cluster.kubeconfig.write_text(done.stdout)
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
