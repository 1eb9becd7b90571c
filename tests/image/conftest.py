"""The image that Docker makes of operator/Dockerfile, on a base made of Debian's packages (`make test-image`).

RUNKEYS_IMAGE_BASE names another base, such as the one in the Dockerfile, where that can be pulled. Apart from
tests/e2e, since the machine of `make test` may have a Docker that is not for tests, or none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from scripts.image import build
from scripts.image.archive import ImageArchive, opened
from testing.cluster import docker, docker_images

TAG = "localhost/runkeys-operator:test-image"
BASE = os.environ.get(docker_images.BASE_VARIABLE) or docker_images.DEBIAN
MADE = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.Engine]:
    """The Docker engine, kept for all tests."""
    with docker.engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def made(engine: docker.Engine, tmp_path_factory: pytest.TempPathFactory) -> build.Made:  # noqa: ARG001
    """What `make image` makes."""
    return build.make(BASE, TAG, tmp_path_factory.mktemp("image"), MADE)


@pytest.fixture(scope="session")
def image(made: build.Made) -> Iterator[ImageArchive]:
    """The files of the image."""
    with opened(made.archive) as archive:
        yield archive


class Container:
    """Runs Python in a container of the image, as the chart runs the operator but for what is asked."""

    def __init__(self, engine: docker.Engine) -> None:
        self._engine = engine

    def python(self, program: str, *, writable: bool = False, user: str = "") -> Any:
        """Run a program that prints JSON, and return that."""
        flags = [flag for flag in build.RESTRICTED if not (writable and flag == "--read-only")]
        flags += [f"--user={user}"] if user else []
        words = ("run", "--rm", *flags, "--entrypoint=python3", TAG, "-c", program)
        return json.loads(self._engine.run(*words, timeout=120))


@pytest.fixture
def container(made: build.Made, engine: docker.Engine) -> Container:  # noqa: ARG001 -- the image has to be there
    return Container(engine)
