"""Publishes what was made: image, chart, signatures, packages, page.

Each function runs one program, which takes its login from where the workflow put it. Nothing here holds a password.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from runkeys._version import __version__
from scripts.release import checksums
from scripts.release.artifacts import NOTES
from scripts.release.programs import run
from scripts.release.reference import Image, Registry
from testing.cluster import build

BUNDLE = f"{checksums.NAME}.sigstore.json"


def index(registry: Registry, parts: list[Image]) -> Image:
    """Push one image for all platforms, made of the pushed images of each, and return it.

    :raises ValueError: there is none.
    """
    if not parts:
        raise ValueError("no image was pushed: make release-image")
    build.ensure(("crane",), sys.stderr)
    tag = f"{registry.image}:{__version__}"
    manifests = [f"--manifest={part}" for part in parts]
    printed = run(build.program("crane"), "index", "append", *_insecure(registry), *manifests, f"--tag={tag}")
    return Image.parse(f"{registry.image}@{_digest(printed)}")


def pushed(registry: Registry, archive: Path, tag: str) -> Image:
    """Push an image from a docker-archive, and return it."""
    build.ensure(("crane",), sys.stderr)
    printed = run(build.program("crane"), "push", *_insecure(registry), archive, f"{registry.image}:{tag}")
    return Image.parse(f"{registry.image}@{_digest(printed)}")


def chart(registry: Registry, folder: Path) -> Image:
    """Push the chart's package, and return what was pushed."""
    build.ensure(("helm",), sys.stderr)
    package = folder / f"runkeys-chart-{__version__}.tgz"
    plain = ["--plain-http"] if registry.is_local else []
    printed = run(build.program("helm"), "push", package, registry.charts, *plain)
    return Image.parse(f"{registry.chart.removeprefix('oci://')}@{_digest(printed)}")


def sign(folder: Path, *images: Image) -> None:
    """Sign images and checksums with the identity of the workflow that runs this."""
    for image in images:
        run("cosign", "sign", "--yes", str(image))
    run("cosign", "sign-blob", "--yes", "--bundle", folder / BUNDLE, folder / checksums.NAME)


def package(folder: Path, *options: str) -> None:
    """Upload wheel and sdist to the Python index, which trusts this workflow."""
    uv = Path(sys.executable).parent / "uv"
    run(uv, "publish", *options, *packages(folder))


def packages(folder: Path) -> list[Path]:
    """Return wheel and sdist, and none of the other files."""
    return sorted((*folder.glob("runkeys-*.whl"), *folder.glob(f"runkeys-{__version__}.tar.gz")))


def page(folder: Path) -> None:
    """Create the release on GitHub with all files, of a tag that is there already."""
    assets = [path for path in sorted(folder.iterdir()) if path.name != NOTES]
    tag = f"v{__version__}"
    create = ("gh", "release", "create", tag, "--verify-tag", "--title", tag)
    run(*create, "--notes-file", folder / NOTES, *assets)


def outputs(values: dict[str, str]) -> None:
    """Hand values on to the steps that follow: to the file that the workflow names, or else to the terminal."""
    lines = [f"{name}={value}\n" for name, value in values.items()]
    target = os.environ.get("GITHUB_OUTPUT")
    if target:
        with Path(target).open("a") as file:
            file.writelines(lines)
    else:
        sys.stdout.writelines(lines)


def _insecure(registry: Registry) -> list[str]:
    return ["--insecure"] if registry.is_local else []


def _digest(printed: str) -> str:
    found = re.findall(r"sha256:[0-9a-f]{64}", printed)
    if not found:
        raise SystemExit(f"no digest in {json.dumps(printed[-500:])}")
    return str(found[-1])
