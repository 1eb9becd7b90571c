"""Builds the operator's image with Docker, starts it, and says what is in it: `python -m scripts.image`."""

from __future__ import annotations

import argparse
import sys

from scripts.image import build
from scripts.release.artifacts import commit_time
from testing.cluster import docker_images, images
from testing.cluster.base import ClusterError
from testing.cluster.cache import CHECKOUT

FOLDER = CHECKOUT / "build" / "image"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.image", description=__doc__)
    parser.add_argument(
        "--base",
        default="",
        help=f"image to build on; '{docker_images.DEBIAN}': one made here of Debian's packages (root)",
    )
    parser.add_argument("--tag", default=images.OPERATOR_IMAGE, help=f"default: {images.OPERATOR_IMAGE}")
    arguments = parser.parse_args()
    try:
        made = build.make(arguments.base, arguments.tag, FOLDER, commit_time())
    except (ClusterError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for name, text in made.facts.items():
        sys.stdout.write(f"  {name:<9} {text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
