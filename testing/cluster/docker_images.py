"""The images of tests and demo made by Docker, for machines whose own Python is none for a Linux container.

They hold what testing/cluster/images.py puts together elsewhere, on the base that operator/Dockerfile names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testing.cluster import docker, python_files
from testing.cluster.cache import CHECKOUT, cache_dir, content_key
from testing.cluster.rootfs import root_file_system

DOCKERFILE = CHECKOUT / "operator" / "Dockerfile"
BASE_VARIABLE = "RUNKEYS_IMAGE_BASE"
"""Names another base than the Dockerfile does, for machines that cannot pull that one."""
DEBIAN = "debian"
"""Instead of an image's name: a base made here of Debian's packages."""
DEBIAN_TAG = "localhost/runkeys-base:1"
_DEBIAN_SUITE = "trixie"
_DEBIAN_PACKAGES = ("ca-certificates", "python3", "python3-pip", "tzdata")
# Of a proxy on the way to the Python index, if there is one: pip's own settings.
_CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_SECONDS = 900
_PIP = (
    "RUN --mount=type=secret,id=certificates "
    "if [ -f /run/secrets/certificates ]; then export PIP_CERT=/run/secrets/certificates; fi; "
    "python3 -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary=:all:"
)


def build(
    engine: docker.Engine, tag: str, file: Path, context: Path, base: str = "", options: Sequence[str] = ()
) -> None:
    """Build a Dockerfile.

    :param base: the image to build on, or ``debian``; empty: see ``base_of``.
    :raises ClusterError: the build failed, or its base could not be made.
    """
    base = base_of(engine, base)
    if base == DEBIAN:
        base = debian_base(engine)
    words = ["--tag", tag, "--file", str(file), "--build-arg", f"BASE={base}", *options]
    # A daemon of our own has no bridge.
    words += ["--network", "host"] if engine.host else []
    certificates = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), "")
    words += ["--secret", f"id=certificates,src={certificates}"] if certificates else []
    # Mounts of secrets take the newer builder, which older versions of Docker use only if told.
    environment = engine.environment() | {
        "DOCKER_BUILDKIT": "1",
        "BUILDKIT_PROGRESS": "plain",
        # One image, and no index with a record of the build beside it, which a release has of its own.
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    }
    done = subprocess.run(
        [docker.client(), "build", *words, str(context)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        raise docker.DockerError(f"docker build ended with {done.returncode}: {done.stderr.strip()[-4000:]}")


def base_of(engine: docker.Engine, base: str = "") -> str:
    """Return the base to build on: the given one, that of RUNKEYS_IMAGE_BASE, Debian, or the Dockerfile's.

    Debian is for a daemon of our own, which runs where no other is, and perhaps has nothing to pull from.
    """
    return base or os.environ.get(BASE_VARIABLE, "") or (DEBIAN if engine.host else base_of_dockerfile())


def pulled(engine: docker.Engine, base: str) -> str:
    """Pull an image and return its name with its digest, by which nothing else is built on.

    :raises DockerError: it could not be pulled.
    """
    engine.run("pull", "--quiet", base)
    names = json.loads(engine.run("image", "inspect", "--format", "{{json .RepoDigests}}", base))
    repository = re.sub(r":[^:/]+$", "", base.partition("@")[0])
    for name in names:
        if name.partition("@")[0] == repository:
            return str(name)
    raise docker.DockerError(f"{base} was pulled and has no digest: {names}")


def debian_base(engine: docker.Engine, suite: str = _DEBIAN_SUITE, tag: str = DEBIAN_TAG) -> str:
    """Make a base image of Debian's packages, and return its tag.

    :raises ClusterError: mmdebstrap or Docker refused.
    """
    engine.run("import", root_file_system("python", _DEBIAN_PACKAGES, suite=suite), tag)
    return tag


def save(engine: docker.Engine, tag: str, target: Path) -> Path:
    """Write the archive of an image, and return its path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    engine.run("save", "--output", target, tag)
    return target


def base_of_dockerfile() -> str:
    """Return the base image that operator/Dockerfile names."""
    found = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError("operator/Dockerfile names no BASE")
    return found[1]


def operator_image(tag: str, checkout: Path = CHECKOUT) -> Path:
    """Build operator/Dockerfile, and return the archive."""
    return _made(tag, DOCKERFILE.read_text(), checkout)


def task_image(tag: str) -> Path:
    """Build the image of the tasks of tests: Python and a shell."""
    return _made(tag, f'{_head()}ENV LANG=C.UTF-8 HOME=/tmp\nCMD ["python3"]\n', None)


def sdk_image(tag: str, user: str) -> Path:
    """Build the image with ``runkeys[cli]`` and examples in /app, for tasks that use the SDK."""
    lines = [
        "COPY cli.txt /build/cli.txt",
        f"{_PIP} --target=/app/site-packages --requirement=/build/cli.txt",
        "COPY operator/runkeys /opt/runkeys/runkeys",
        "COPY examples /app/examples",
        "ENV LANG=C.UTF-8 HOME=/tmp PYTHONPATH=/opt/runkeys:/app/site-packages PYTHONUNBUFFERED=1",
        f"WORKDIR /app\nUSER {user}",
        'CMD ["python3"]',
    ]
    return _made(tag, _head() + "\n".join(lines) + "\n", CHECKOUT, {"cli.txt": cli_lock()})


def cli_lock() -> str:
    """Return the part of requirements/dev.txt that ``runkeys[cli]`` needs."""
    wanted = {
        re.sub(r"[-_.]+", "-", distribution.name).lower()
        for distribution in python_files.requirements(CHECKOUT / "pyproject.toml", "cli")
    }
    lock = (CHECKOUT / "requirements" / "dev.txt").read_text()
    parts = re.split(r"\n(?=[a-zA-Z0-9])", lock)
    return "\n".join(part for part in parts if part.partition("==")[0].lower() in wanted) + "\n"


def _head() -> str:
    return f"ARG BASE={base_of_dockerfile()}\nFROM ${{BASE}}\n"


def _made(tag: str, text: str, source: Path | None, files: dict[str, str] | None = None) -> Path:
    """Build from a copy of what a Dockerfile copies, and return the archive. Docker has a cache of its own."""
    name = tag.rpartition("/")[2].replace(":", "-")
    with tempfile.TemporaryDirectory() as scratch, docker.engine() as engine:
        context = Path(scratch)
        for path, content in {"Dockerfile": text, **(files or {})}.items():
            (context / path).write_text(content)
        if source is not None:
            for copied in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE):
                if copied not in (files or {}):
                    _copy(source / copied, context / copied)
        build(engine, tag, context / "Dockerfile", context)
        digest = engine.run("image", "inspect", "--format", "{{.Id}}", tag).strip()
        target = cache_dir() / "images" / f"{name}-docker-{content_key(digest)}.tar"
        return target if target.exists() else save(engine, tag, target)


def _copy(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.is_file() and "__pycache__" not in path.parts:
            to = target / path.relative_to(source) if source.is_dir() else target
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
            to.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
