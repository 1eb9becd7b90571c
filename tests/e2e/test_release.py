"""What a release is made of: whole, checked, and nothing in it that does not belong there."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import runkeys
from testing.cluster.cache import CHECKOUT

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make release-artifacts`, into a folder of the test's own."""
    target = tmp_path_factory.mktemp("release")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.release", str(target)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_everything_is_there_and_has_its_checksum(folder: Path) -> None:
    version = runkeys.__version__
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}

    assert sums.keys() == {
        f"runkeys-{version}-py3-none-any.whl",
        f"runkeys-{version}.tar.gz",
        f"runkeys-chart-{version}.tgz",
        f"runkeys-{version}.cdx.json",
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
