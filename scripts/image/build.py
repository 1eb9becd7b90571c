"""Builds the operator's image with Docker, tries it, and lists what is in it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runkeys._version import __version__
from scripts.image import contents
from scripts.image.archive import ImageArchive, opened
from scripts.release.reference import IMAGE_NAME
from testing.cluster import docker, images
from testing.cluster.cache import CHECKOUT
from testing.cluster.rootfs import root_file_system

LOCK = CHECKOUT / "requirements" / "operator.txt"
DEBIAN = "debian"
"""Instead of an image's name: a base made here of Debian's packages."""
BASE = "localhost/runkeys-base:1"
BASE_SUITE = "trixie"
BASE_PACKAGES = ("ca-certificates", "python3", "python3-pip", "tzdata")
_SECONDS = 900
# Of a proxy on the way to the Python index, if there is one: pip's own settings.
_CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


def debian_base(engine: docker.Engine, suite: str = BASE_SUITE, tag: str = BASE) -> str:
    """Make a base image of Debian's packages, for machines that can pull none, and return its tag.

    :raises ClusterError: mmdebstrap or Docker refused.
    """
    root = root_file_system("python", BASE_PACKAGES, suite=suite)
    engine.run("import", root, tag)
    return tag


def docker_build(
    engine: docker.Engine, tag: str, base: str = "", labels: dict[str, str] | None = None
) -> None:
    """Build operator/Dockerfile.

    :param base: the image to build on; empty: the one that the Dockerfile names.
    :raises DockerError: the build failed.
    """
    options = ["--tag", tag, "--file", str(images.DOCKERFILE)]
    options += ["--build-arg", f"BASE={base}"] if base else []
    options += [part for key, value in (labels or {}).items() for part in ("--label", f"{key}={value}")]
    # A daemon of our own has no bridge.
    options += ["--network", "host"] if engine.host else []
    for name in _CERTIFICATES:
        if os.environ.get(name):
            options += ["--secret", f"id=certificates,src={os.environ[name]}"]
            break
    # Mounts of secrets take the newer builder, which older versions of Docker use only if told.
    environment = engine.environment() | {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
    done = subprocess.run(
        [docker.client(), "build", *options, str(CHECKOUT)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        raise docker.DockerError(f"docker build ended with {done.returncode}: {done.stderr.strip()[-4000:]}")


def save(engine: docker.Engine, tag: str, target: Path) -> Path:
    """Write the archive of an image, and return its path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    engine.run("save", "--output", target, tag)
    return target


RESTRICTED = ("--read-only", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges")
"""As the chart runs it, and without a network."""


def run(engine: docker.Engine, tag: str, *words: str, entrypoint: str = "") -> str:
    """Run a command in a restricted container of the image, and return its output."""
    replaced = [f"--entrypoint={entrypoint}"] if entrypoint else []
    return engine.run("run", "--rm", *RESTRICTED, *replaced, tag, *words, timeout=120)


@dataclass(frozen=True)
class Made:
    """An image that was built and tried.

    :ivar archive: as ``docker save`` wrote it.
    :ivar contents: the list of what is in it.
    :ivar facts: lines for people.
    """

    archive: Path
    contents: Path
    architecture: str
    facts: dict[str, str]


def make(base: str, tag: str, folder: Path, made: datetime, labels: dict[str, str] | None = None) -> Made:
    """Build the image, start it, and list its contents.

    :param base: ``debian``, the name of an image, or empty: Debian where the daemon is ours, since it pulls nothing,
        else the image that the Dockerfile names.
    :raises ClusterError: it could not be built.
    :raises ValueError: it was built and is not as it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with docker.engine() as engine:
        if base == DEBIAN or (not base and engine.host):
            base = debian_base(engine)
        docker_build(engine, tag, base, labels)
        started = run(engine, tag, "--version").strip()
        python = run(engine, tag, "--version", entrypoint="python3").strip()
        archive = save(engine, tag, folder / f"{IMAGE_NAME}.tar")
    if __version__ not in started:
        raise ValueError(f"the operator in the image calls itself {started!r}, not {__version__}")
    with opened(archive) as image:
        document = contents.listed(image, IMAGE_NAME, LOCK.read_text(), made)
        path = folder / f"{IMAGE_NAME}-{__version__}-linux-{image.architecture}.cdx.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        kinds = [item["bom-ref"].partition("/")[0] for item in document["components"]]
        facts = {
            "image": f"{tag}, linux/{image.architecture}, on {base or 'the base of the Dockerfile'}",
            "size": _size(image),
            "user": image.config["User"],
            "starts": f"{started}, {python}; {' '.join(RESTRICTED)}",
            "contents": f"{kinds.count('pkg:deb')} packages of Debian, {kinds.count('pkg:pypi')} of Python: {path}",
        }
        return Made(archive, path, image.architecture, facts)


def _size(image: ImageArchive) -> str:
    layers = " + ".join(f"{layer.size / 1e6:.1f}" for layer in image.layers)
    return f"{image.size / 1e6:.0f} MB in {len(image.layers)} layers: {layers}"
