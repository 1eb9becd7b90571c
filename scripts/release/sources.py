"""The sources that a release is built from: those of the checkout, with the image that was pushed for them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from scripts import chart_values
from scripts.release.programs import run
from scripts.release.reference import Image
from testing.cluster.cache import CHECKOUT

CHART = Path("helm") / "runkeys"


def copied(target: Path, image: Image | None) -> Path:
    """Copy the checkout's own files, without anything that git ignores, and return the folder.

    :param image: what the chart names; None: the image of the checkout, which everybody builds for themselves.
    """
    for name in run("git", "ls-files", "-z").split("\0"):
        source = CHECKOUT / name
        if name and source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    if image is not None:
        name_image(target / CHART, image)
    return target


def name_image(chart: Path, image: Image) -> None:
    """Write an image into a chart: its values, the defaults that it fills in, and its README."""
    path = chart / "values.yaml"
    values = with_image(path.read_text(), image)
    path.write_text(values)
    (chart / "files" / "defaults.yaml").write_text(chart_values.defaults(values))
    readme = chart / "README.md"
    readme.write_text(chart_values.written(readme.read_text(), values))


def with_image(values: str, image: Image) -> str:
    """Return values.yaml with another image.

    :raises ValueError: it has no such lines.
    """
    for key, value in (("repository", image.repository), ("digest", f'"{image.digest}"')):
        values, count = re.subn(
            rf"(^image:\n(?:(?![a-z]).*\n)*?  {key}: ).*$", rf"\g<1>{value}", values, flags=re.MULTILINE
        )
        if count != 1:
            raise ValueError(f"values.yaml has no image.{key}")
    return values
