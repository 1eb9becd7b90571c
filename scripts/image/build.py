"""Builds the operator's image with Docker, tries it, and lists what is in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from runkeys._version import __version__
from scripts.image import contents
from scripts.image.archive import ImageArchive, opened
from scripts.release.reference import IMAGE_NAME
from testing.cluster import docker, docker_images
from testing.cluster.cache import CHECKOUT

BASE_LABEL = "org.opencontainers.image.base"
LOCK = CHECKOUT / "requirements" / "operator.txt"


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

    With labels it is for others: then its base is pulled, and the labels say which it is.

    :param base: see ``docker_images.build``.
    :raises ClusterError: it could not be built.
    :raises ValueError: it was built and is not as it should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with docker.engine() as engine:
        base = docker_images.base_of(engine, base)
        labels = dict(labels or {})
        if labels and base != docker_images.DEBIAN:
            name, base = base, docker_images.pulled(engine, base)
            labels |= {f"{BASE_LABEL}.name": name, f"{BASE_LABEL}.digest": base.partition("@")[2]}
        options = [part for key, value in labels.items() for part in ("--label", f"{key}={value}")]
        docker_images.build(engine, tag, docker_images.DOCKERFILE, CHECKOUT, base, options)
        started = run(engine, tag, "--version").strip()
        python = run(engine, tag, "--version", entrypoint="python3").strip()
        archive = docker_images.save(engine, tag, folder / f"{IMAGE_NAME}.tar")
    if __version__ not in started:
        raise ValueError(f"the operator in the image calls itself {started!r}, not {__version__}")
    with opened(archive) as image:
        document = contents.listed(image, IMAGE_NAME, LOCK.read_text(), made)
        path = folder / f"{IMAGE_NAME}-{__version__}-linux-{image.architecture}.cdx.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        kinds = [item["bom-ref"].partition("/")[0] for item in document["components"]]
        facts = {
            "image": f"{tag}, linux/{image.architecture}, on {base}",
            "size": _size(image),
            "user": image.config["User"],
            "starts": f"{started}, {python}; {' '.join(RESTRICTED)}",
            "contents": f"{kinds.count('pkg:deb')} packages of Debian, {kinds.count('pkg:pypi')} of Python: {path}",
        }
        return Made(archive, path, image.architecture, facts)


def _size(image: ImageArchive) -> str:
    layers = " + ".join(f"{layer.size / 1e6:.1f}" for layer in image.layers)
    return f"{image.size / 1e6:.0f} MB in {len(image.layers)} layers: {layers}"
