"""Makes and publishes a release, step by step: `python -m scripts.release STEP`.

The release workflow calls these steps, by make. Without REGISTRY in the environment nothing leaves the machine. With
it, such as registry.example/owner/name, image and chart are pushed to there.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from runkeys._version import __version__
from scripts.image import build
from scripts.release import artifacts, checksums, notes, publish
from scripts.release.programs import run
from scripts.release.reference import IMAGE_NAME, Image, Registry
from testing.cluster.base import ClusterError
from testing.cluster.cache import CHECKOUT

INDEX, CHART = "image.json", "chart.json"
"""Names of files that one step leaves for the next."""


def check(_: argparse.Namespace) -> None:
    """Refuse a tag that is not the version's, and a version of which CHANGELOG.md says nothing."""
    tag = os.environ.get("GITHUB_REF_NAME", "") if os.environ.get("GITHUB_REF_TYPE") == "tag" else ""
    if tag and tag != f"v{__version__}":
        raise SystemExit(f"the tag {tag} is not v{__version__}, the version in operator/runkeys/_version.py")
    text = _changelog()
    notes.section(text, __version__ if tag else notes.UNRELEASED)
    sys.stdout.write(f"{'release' if tag else 'trial of'} {__version__}\n")


def image(arguments: argparse.Namespace) -> None:
    """Build the image of this machine's platform, try it, list its contents, and push it if there is a registry."""
    repository, server = _repository()
    labels = {"version": __version__, "revision": run("git", "rev-parse", "HEAD").strip()}
    if repository:
        # By this GitHub knows whose image it is.
        labels["source"] = f"{server}/{repository}"
    named = {f"org.opencontainers.image.{key}": value for key, value in labels.items()}
    made = build.make(
        os.environ.get("BASE", ""), f"{IMAGE_NAME}:release", arguments.parts, artifacts.commit_time(), named
    )
    for name, text in made.facts.items():
        sys.stdout.write(f"  {name:<9} {text}\n")
    if os.environ.get("REGISTRY"):
        pushed = publish.pushed(_registry(), made.archive, f"{__version__}-{made.architecture}")
        pushed.write(arguments.parts / f"image-{made.architecture}.json")
        sys.stdout.write(f"{pushed}\n")
    made.archive.unlink()


def index(arguments: argparse.Namespace) -> None:
    """Push the image of all platforms."""
    made = publish.index(_registry(), [Image.read(path) for path in _platforms(arguments.parts)])
    made.write(arguments.parts / INDEX)
    sys.stdout.write(f"{made}\n")


def files(arguments: argparse.Namespace) -> None:
    """Make the files of the release."""
    image = Image.parse(arguments.image) if arguments.image else _if_there(arguments.parts / INDEX)
    repository, server = _repository()
    page = f"{server}/{repository}/blob/v{__version__}" if repository and server else ""
    registry = _registry() if os.environ.get("REGISTRY") else None
    text = notes.notes(_changelog(), __version__, registry, image, page, repository)
    folder: Path = arguments.folder.resolve()
    artifacts.make(folder, image, sorted(arguments.parts.glob("*.cdx.json")), text)
    for path in sorted(folder.iterdir()):
        sys.stdout.write(f"{path.stat().st_size:>9}  {path.name}\n")


def chart(arguments: argparse.Namespace) -> None:
    """Push the chart."""
    checksums.check(arguments.folder)
    publish.chart(_registry(), arguments.folder).write(arguments.parts / CHART)


def outputs(arguments: argparse.Namespace) -> None:
    """Print what has been pushed so far, and the list of its contents, for the workflow."""
    parts: Path = arguments.parts
    found = {"image": (parts / INDEX, *_platforms(parts)), "chart": (parts / CHART,)}
    values: dict[str, str] = {}
    for name, paths in found.items():
        for pushed in [Image.read(path) for path in paths if path.exists()][:1]:
            values |= {f"{name}-repository": pushed.repository, f"{name}-digest": pushed.digest}
    for path in sorted(arguments.parts.glob("*.cdx.json"))[:1]:
        values["image-contents"] = str(path)
    publish.outputs(values)


def sign(arguments: argparse.Namespace) -> None:
    """Sign image, chart and checksums."""
    checksums.check(arguments.folder)
    publish.sign(arguments.folder, Image.read(arguments.parts / INDEX), Image.read(arguments.parts / CHART))


def package(arguments: argparse.Namespace) -> None:
    """Upload the Python package."""
    publish.package(arguments.folder, "--trusted-publishing", "always")


def page(arguments: argparse.Namespace) -> None:
    """Create the release on GitHub."""
    publish.page(arguments.folder)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "check": check,
    "image": image,
    "index": index,
    "artifacts": files,
    "chart": chart,
    "outputs": outputs,
    "sign": sign,
    "package": package,
    "page": page,
}


def _repository() -> tuple[str, str]:
    """Return `owner/name` and the address of GitHub; empty where no workflow runs."""
    return os.environ.get("GITHUB_REPOSITORY", ""), os.environ.get("GITHUB_SERVER_URL", "")


def _platforms(parts: Path) -> list[Path]:
    return sorted(parts.glob("image-*.json"))


def _registry() -> Registry:
    root = os.environ.get("REGISTRY", "")
    if not root:
        raise SystemExit("name a place in a container registry: REGISTRY=registry.example/owner/name")
    return Registry.of(root)


def _changelog() -> str:
    return (CHECKOUT / "CHANGELOG.md").read_text()


def _if_there(path: Path) -> Image | None:
    return Image.read(path) if path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.release", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("folder", nargs="?", type=Path, default=CHECKOUT / "dist", help="default: dist/")
    parser.add_argument(
        "--parts", type=Path, default=CHECKOUT / "build" / "release", help="what one step leaves for the next"
    )
    parser.add_argument("--image", help="what the chart names: REPOSITORY@sha256:…")
    arguments = parser.parse_args()
    try:
        STEPS[arguments.step](arguments)
    except (ClusterError, ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
