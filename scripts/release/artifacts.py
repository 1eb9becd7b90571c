"""Makes the files of a release.

Wheel and sdist, tried in a clean environment with the locked dependencies; the chart's package; the lists of
contents; the notes; checksums. The wheel is built from the sdist, so the sdist is known to be whole. The same commit
gives the same files, byte for byte.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from runkeys._version import __version__
from scripts import sbom
from scripts.release import checksums
from scripts.release.programs import run
from scripts.release.reference import Image
from scripts.release.sources import CHART, copied
from scripts.sbom import Json
from testing.cluster import build
from testing.cluster.cache import CHECKOUT

NOTES = "NOTES.md"
LOCK = CHECKOUT / "requirements" / "operator.txt"


def make(folder: Path, image: Image | None, lists: list[Path], text: str) -> None:
    """Make everything, into a folder that is emptied first.

    :param image: what the chart in it names.
    :param lists: contents of the image, which are part of the release.
    :param text: the notes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = commit_time()
    build.ensure(("helm",), sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        sources = copied(Path(scratch), image)
        wheel = packages(sources, folder, made)
        chart(sources / CHART, folder, made)
    document = contents(installed(wheel), made)
    (folder / f"runkeys-{__version__}.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
    for path in lists:
        shutil.copy(path, folder)
    (folder / NOTES).write_text(text)
    checksums.write(folder)


def commit_time() -> datetime:
    return datetime.fromtimestamp(int(run("git", "log", "-1", "--format=%ct")), UTC)


def packages(sources: Path, folder: Path, made: datetime) -> Path:
    """Build sdist and wheel, check both, and return the wheel."""
    tools = Path(sys.executable).parent
    run(
        *(tools / "uv", "build", "--no-build-isolation", "--python", sys.executable),
        *("--out-dir", folder, sources),
        SOURCE_DATE_EPOCH=str(int(made.timestamp())),
    )
    (folder / ".gitignore").unlink(missing_ok=True)
    run(tools / "twine", "check", "--strict", *sorted(folder.glob("runkeys-*")))
    [wheel] = folder.glob("*.whl")
    return wheel


def chart(source: Path, folder: Path, made: datetime) -> Path:
    """Package the chart, and return the package."""
    with tempfile.TemporaryDirectory() as scratch:
        run(build.program("helm"), "package", source, "--destination", scratch)
        [package] = Path(scratch).iterdir()
        # helm gives its package the name that the sdist nearly has.
        target = folder / f"runkeys-chart-{__version__}.tgz"
        target.write_bytes(_without_times(package, int(made.timestamp())))
    return target


def _without_times(package: Path, moment: int) -> bytes:
    """Return a .tgz in which each file has the same time. helm writes the time of packaging."""
    packed = io.BytesIO()
    with (
        tarfile.open(package) as source,
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=moment) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as target,
    ):
        for entry in sorted(
            source.getmembers(), key=lambda entry: (entry.name != "runkeys/Chart.yaml", entry.name)
        ):
            entry.mtime, entry.pax_headers = moment, {}
            target.addfile(entry, source.extractfile(entry))
    return packed.getvalue()


def installed(wheel: Path) -> list[Json]:
    """Install the wheel and the operator's locked dependencies into a clean environment, and try it.

    :return: the metadata of each distribution, pip and the like apart.
    """
    with tempfile.TemporaryDirectory() as scratch:
        clean = Path(scratch) / "venv"
        run(sys.executable, "-m", "venv", clean)
        python, alone = clean / "bin" / "python", {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        before = {item["metadata"]["name"] for item in _inspect(python)}
        run(*pip, "install", "--require-hashes", "--only-binary=:all:", "-r", LOCK, **alone)
        run(*pip, "install", "--no-deps", wheel, **alone)
        run(*pip, "check", **alone)
        told = run(python, "-m", "runkeys_operator", "--version", **alone)
        if __version__ not in told:
            raise SystemExit(f"the installed operator calls itself {told.strip()!r}, not {__version__}")
        found = [item["metadata"] for item in _inspect(python)]
    return [item for item in found if item["name"] not in before]


def _inspect(python: Path) -> list[Json]:
    printed = run(python, "-m", "pip", "--disable-pip-version-check", "inspect", PYTHONPATH="")
    found: list[Json] = json.loads(printed)["installed"]
    return found


def contents(distributions: list[Json], made: datetime) -> Json:
    """Return the list of what the wheel brings along."""
    hashes = sbom.locked_hashes(LOCK.read_text())
    components = [sbom.python_component(item, hashes) for item in distributions]
    [main] = [item for item in components if item["name"] == "runkeys"]
    others = [item for item in components if item is not main]
    depends = sbom.python_dependencies(distributions)
    return sbom.document({**main, "type": "application"}, others, depends, made)
