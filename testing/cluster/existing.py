"""The provider ``existing``: a cluster that somebody else runs. It is used only if its context is named."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cached_property
from pathlib import Path

from testing.cluster import build
from testing.cluster.base import Cluster, ClusterError

CONTEXT_VARIABLE = "RUNKEYS_E2E_CONTEXT"


class ExistingCluster(Cluster):
    """A cluster that is used through its API server only. Nothing is started, stopped or inspected."""

    provider = "existing"

    @classmethod
    def use(cls, context: str) -> ExistingCluster:
        """Use the cluster of this kubeconfig context.

        :raises ClusterError: there is no such context.
        """
        build.ensure(build.CLIENT_GROUPS)
        # A copy with this context only: the user's current context stays unchanged.
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
