"""What a release is made of: whole, checked, and nothing in it that does not belong there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import runkeys
from scripts.release import artifacts, checksums, publish
from scripts.release.reference import Image, Registry
from scripts.release.sources import CHART, copied
from testing.cluster import build, images
from testing.cluster.cache import CHECKOUT, file_lock
from testing.cluster.registry import registry as served

IMAGE = Image("registry.example/owner/name/runkeys-operator", f"sha256:{'ab' * 32}")

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make release-artifacts`, into a folder of this run's own: once for all workers."""
    mine = tmp_path_factory.getbasetemp()
    shared = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    target = shared / "release"
    with file_lock(shared / ".release.lock"):
        if not target.exists():
            made = tmp_path_factory.mktemp("release")
            make_artifacts(made, tmp_path_factory.mktemp("parts"))
            made.rename(target)
    return target


def make_artifacts(target: Path, parts: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "scripts.release",
            "artifacts",
            str(target),
            f"--image={IMAGE}",
            f"--parts={parts}",
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_is_there_and_has_its_checksum(folder: Path) -> None:
    version = runkeys.__version__
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}

    assert sums.keys() == {
        f"runkeys-{version}-py3-none-any.whl",
        f"runkeys-{version}.tar.gz",
        f"runkeys-chart-{version}.tgz",
        f"runkeys-{version}.cdx.json",
        "NOTES.md",
    }
    assert {path.name for path in folder.iterdir()} == {*sums, "SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_wheel_holds_the_two_packages_and_nothing_else(folder: Path) -> None:
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    own = {
        str(path.relative_to(CHECKOUT / "operator"))
        for package in ("runkeys", "runkeys_operator")
        for path in (CHECKOUT / "operator" / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    chart = CHECKOUT / "helm" / "runkeys"  # for `runkeys install`
    own |= {f"runkeys/chart/{path.relative_to(chart)}" for path in chart.rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == own
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_sdist_holds_what_the_wheel_is_built_from(folder: Path) -> None:
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        top = {name.split("/")[1] for name in archive.getnames()}

    assert top == {
        "operator",
        "helm",
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "PKG-INFO",
        ".gitignore",
    }


def test_the_list_of_what_is_inside_names_every_locked_package(folder: Path) -> None:
    [path] = folder.glob("*.cdx.json")
    bom = json.loads(path.read_text())
    here = {item["name"].lower().replace("_", "-"): item["version"] for item in bom["components"]}
    lock = (CHECKOUT / "requirements" / "operator.txt").read_text()
    # Apart from those that the lock has for other Pythons or platforms only.
    locked = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+) \\$", lock, re.MULTILINE))

    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    validate = JsonStrictValidator(SchemaVersion.V1_6).validate_str
    assert validate(json.dumps(bom)) is None
    assert validate(json.dumps({**bom, "version": "one"})) is not None, "the twin: what is wrong is seen"
    assert bom["metadata"]["component"]["version"] == runkeys.__version__
    assert locked.items() <= here.items()
    assert len(locked) > 10
    refs = [item["bom-ref"] for item in [bom["metadata"]["component"], *bom["components"]]]
    assert len(refs) == len(set(refs))
    assert {item["ref"] for item in bom["dependencies"]} == set(refs)
    [own] = [item for item in bom["dependencies"] if item["ref"] == bom["metadata"]["component"]["bom-ref"]]
    assert {"pkg:pypi/kopf", "pkg:pypi/pydantic", "pkg:pypi/prometheus-client"} <= {
        ref.partition("@")[0] for ref in own["dependsOn"]
    }
    for item in bom["components"]:
        assert item.get("properties"), item["name"]


def images_of(chart: Path | str, *options: str) -> set[str]:
    """The operator's images in what helm renders, without any value being set."""
    done = subprocess.run(
        [build.program("helm"), "template", "runkeys", chart, "--kube-version", build.KUBERNETES, *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    return set(re.findall(r'image: "?(\S+?)"?$', done.stdout, re.MULTILINE))


def test_the_released_chart_names_the_released_image_without_any_value(folder: Path, tmp_path: Path) -> None:
    """Both that which helm installs and that which `runkeys install` has, in the wheel."""
    version = runkeys.__version__
    [wheel] = folder.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path, "zip")
    expected = {f"{IMAGE.repository}:{version}@{IMAGE.digest}"}

    assert images_of(folder / f"runkeys-chart-{version}.tgz") == expected
    assert images_of(tmp_path / "runkeys" / "chart") == expected
    # The checkout's chart names another.
    assert images_of(CHECKOUT / CHART) == {f"localhost/runkeys-operator:{version}"}


def test_the_same_commit_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    sources, target = copied(tmp_path / "sources", IMAGE), tmp_path / "again"
    target.mkdir()
    made = artifacts.commit_time()
    artifacts.packages(sources, target, made)
    artifacts.chart(sources / CHART, target, made)

    again = {path.name: checksums.digest(path) for path in target.iterdir()}
    assert len(again) == 3
    assert again.items() <= checksums.read(folder).items()


def test_the_python_index_gets_wheel_and_sdist_only(folder: Path) -> None:
    """Both are looked at by uv as it would before an upload, and uploads nothing."""
    version = runkeys.__version__

    assert [path.name for path in publish.packages(folder)] == [
        f"runkeys-{version}-py3-none-any.whl",
        f"runkeys-{version}.tar.gz",
    ]
    publish.package(folder, "--dry-run", "--trusted-publishing=never", "--username=x", "--password=x")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A place in a registry on this machine."""
    with served(tmp_path_factory.mktemp("registry") / "log") as address:
        yield Registry.of(f"{address}/Owner/Name")


def test_image_and_chart_are_installed_from_where_they_were_pushed(
    registry: Registry, tmp_path: Path
) -> None:
    """As the workflow pushes them: an image for each platform, one of all, then the chart that names it."""
    version = runkeys.__version__
    part = publish.pushed(registry, images.operator_image(), f"{version}-amd64")
    image = publish.index(registry, [part])
    sources = copied(tmp_path / "sources", image)
    artifacts.chart(sources / CHART, tmp_path, artifacts.commit_time())
    chart = publish.chart(registry, tmp_path)

    expected = {f"{registry.image}:{version}@{image.digest}"}
    assert images_of(registry.chart, "--version", version, "--plain-http") == expected
    assert chart.repository == f"{registry.root}/charts/runkeys"
    # The image is there under its tag, and by its digest, and holds the one for each platform.
    crane = [str(build.program("crane")), "manifest", "--insecure"]
    for name in (f"{registry.image}:{version}", str(image)):
        printed = subprocess.run(
            [*crane, name], capture_output=True, text=True, check=True, timeout=180
        ).stdout
        [only] = json.loads(printed)["manifests"]
        assert only["digest"] == part.digest
        assert only["platform"]["os"] == "linux"
    with pytest.raises(ValueError, match="no image was pushed"):
        publish.index(registry, [])
