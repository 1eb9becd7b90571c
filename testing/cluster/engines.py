"""Engines of others, whose pods ask for secrets in tests: Argo Workflows, Tekton and JobSet, built from source.

Each is built inside a copy of its own module, so with the dependencies that its authors pinned. Programs are built
once and kept. The hash of a module is pinned here, and covers its go.sum.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from testing.cluster import images
from testing.cluster.build import BuildError
from testing.cluster.cache import cache_dir, content_key, forget_unused, made_once
from testing.cluster.golang import GO_ENVIRONMENT, MODULE_GO, go_command

_KEPT = 2
_SECONDS = 3600
# Written for people: user interface, documents, clients in other languages. Nothing that is built here reads it.
_LEFT_OUT = frozenset(("ui", "docs", "sdks", "community", "third_party"))


@dataclass(frozen=True)
class Engine:
    """An engine in one version.

    :ivar sum: of the module, as go.sum writes it.
    :ivar programs: from file name to Go package.
    :ivar links: files that are symbolic links in the engine's repository. Modules have none.
    """

    name: str
    module: str
    version: str
    sum: str
    programs: dict[str, str]
    ldflags: str = ""
    links: dict[str, str] = field(default_factory=dict)

    def source(self) -> Path:
        """Return the folder of the module; downloaded if it is missing.

        :raises BuildError: it cannot be downloaded, or is not the pinned one.
        """
        command = [str(go_command(MODULE_GO)), "mod", "download", "-json", f"{self.module}@{self.version}"]
        done = subprocess.run(
            command,
            cwd=cache_dir(),
            env=os.environ | GO_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        found = json.loads(done.stdout or "{}")
        if done.returncode != 0:
            raise BuildError(f"{self.module} {self.version}: {found.get('Error') or done.stderr.strip()}")
        if found["Sum"] != self.sum:
            raise BuildError(f"{self.module} {self.version} is {found['Sum']}, but {self.sum} is pinned")
        return Path(found["Dir"])

    def program(self, name: str) -> Path:
        """Return the path of a program such as ``argoexec``; built if it is missing, which takes minutes.

        :raises BuildError: it does not build.
        """
        package, link = self.programs[name], f"-s -w {self.ldflags}".strip()
        key = content_key(self.sum, package, link, str(self.links), platform.machine())

        def make(unfinished: Path) -> None:
            print(f"{name} of {self.name} {self.version} …", file=sys.stderr, flush=True)
            copy = unfinished.with_name("source")
            self._copy(copy)
            self._build(copy, package, link, unfinished)

        folder = cache_dir() / "engines"
        built = made_once(folder / f"{name}-{key}", make)
        forget_unused(folder, f"{name}-????????????????", _KEPT)
        return built

    def _copy(self, to: Path) -> None:
        # Go refuses to build a module inside its cache, where files and folders cannot be written either.
        source = self.source()
        shutil.copytree(
            source,
            to,
            ignore=lambda folder, _: _LEFT_OUT if Path(folder) == source else (),
            copy_function=shutil.copyfile,
        )
        for folder in (to, *(path for path in to.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        for link, target in self.links.items():
            shutil.copyfile((to / link).with_name(target), to / link)

    def _build(self, copy: Path, package: str, link: str, target: Path) -> None:
        done = subprocess.run(
            [
                *(str(go_command(MODULE_GO)), "build", "-trimpath", "-buildvcs=false"),
                *("-ldflags", link, "-o", str(target), package),
            ],
            cwd=copy,
            env=os.environ | GO_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if done.returncode != 0:
            raise BuildError(f"{package} of {self.module} does not build:\n{done.stderr[-2000:]}")


ARGO = Engine(
    "argo-workflows",
    "github.com/argoproj/argo-workflows/v4",
    "v4.0.5",
    "h1:/1lru5oXUd+k6KEDUps6rLX5OKfi1jTfabgXTly/VFU=",
    {"workflow-controller": "./cmd/workflow-controller", "argoexec": "./cmd/argoexec"},
    ldflags="-X github.com/argoproj/argo-workflows/v4.version=v4.0.5",
    links={"workflow/executor/osspecific/signal_linux.go": "signal_darwin.go"},
)
TEKTON = Engine(
    "tekton",
    "github.com/tektoncd/pipeline",
    "v1.6.0",
    "h1:A+D+jzOVl2QNl/yiNT7csVgBUy2wpz6K6+/D4q5lfss=",
    {
        name: f"./cmd/{name}"
        for name in ("controller", "entrypoint", "nop", "workingdirinit", "sidecarlogresults")
    },
)
JOBSET = Engine(
    "jobset",
    "sigs.k8s.io/jobset",
    "v0.11.0",
    "h1:1r2uTNQmylnqG/WCSSDADgNkHryvyUaCNCOgvSPWpN8=",
    {"manager": "."},
)
ENGINES = (ARGO, TEKTON, JOBSET)


def image_of(engine: Engine, name: str) -> str:
    """Return the tag of the image of a program, such as ``localhost/argo-workflows/argoexec:v4.0.5``."""
    return f"localhost/{engine.name}/{name}:{engine.version}"


def image(engine: Engine, name: str) -> Path:
    """Return the archive of the image of a program, at the path that the engine's own images have it at."""
    folder = {TEKTON.name: "ko-app/", JOBSET.name: ""}.get(engine.name, "bin/")
    user = "" if name == "argoexec" else f"{images.USER}:{images.USER}"
    return images.program_image(image_of(engine, name), engine.program(name), f"{folder}{name}", user)


def ensure() -> None:
    """Build the programs and images that are missing.

    :raises BuildError: one could not be downloaded or does not build.
    """
    for engine in ENGINES:
        for name in engine.programs:
            image(engine, name)
