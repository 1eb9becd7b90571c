"""What a container of an image would see, read from the image's archive, and the list of it."""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from scripts.image import contents
from scripts.image.archive import ImageArchive, opened

MADE = datetime(2026, 11, 29, tzinfo=UTC)
STATUS = "Package: libc6\nStatus: install ok installed\nArchitecture: arm64\nVersion: 2.41\n"
METADATA = "Metadata-Version: 2.4\nName: kopf\nVersion: 1.45.2\nRequires-Dist: click\n"
LOCK = "kopf==1.45.2 \\\n    --hash=sha256:" + "a" * 64 + "\n"
FILES = {
    "usr/lib/os-release": 'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="13"\n',
    "etc/os-release": "-> ../usr/lib/os-release",
    "var/lib/dpkg/status": STATUS,
    "app/runkeys/_version.py": '__version__ = "1.2.3"\n',
    "app/site-packages/kopf-1.45.2.dist-info/METADATA": METADATA,
}


def layer(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            if text.startswith("-> "):
                entry.type, entry.linkname = tarfile.SYMTYPE, text[3:]
            elif text.startswith("=> "):
                entry.type, entry.linkname = tarfile.LNKTYPE, text[3:]
            else:
                entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()) if entry.isreg() else None)
    return packed.getvalue()


def archive(path: Path, *layers: dict[str, str], environment: tuple[str, ...] = ()) -> Path:
    config = {"architecture": "arm64", "config": {"User": "65532", "Env": list(environment)}}
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]
    with tarfile.open(path, "w") as tar:
        for name, content in [
            ("manifest.json", json.dumps(manifest).encode()),
            ("config.json", json.dumps(config).encode()),
            *zip(names, map(layer, layers), strict=True),
        ]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_an_upper_layer_replaces_and_removes(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "x.tar",
        {"./a/one": "1", "./a/two": "2", "./b/three": "3", "c/four": "4", "d": "5"},
        {"a/.wh.one": "", "b/.wh..wh..opq": "", "b/new": "6", "c/four": "changed", ".wh.d": ""},
    )
    with opened(path) as image:
        assert set(image.files) == {"a/two", "b/new", "c/four"}
        assert image.read("c/four") == b"changed"
        assert (image.architecture, image.config["User"], image.tags) == ("arm64", "65532", ["x:1"])
        assert image.size == sum(item.size for item in image.layers) > 0


def test_links_lead_to_the_content(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "x.tar",
        {
            "usr/lib/file": "text",
            "lib": "-> usr/lib",
            "etc/relative": "-> ../usr/lib/file",
            "etc/absolute": "-> /lib/file",
            "etc/hard": "=> usr/lib/file",
            "etc/circle": "-> circle",
        },
    )
    with opened(path) as image:
        for name in ("usr/lib/file", "lib/file", "etc/relative", "etc/absolute", "etc/hard"):
            assert image.read(name) == b"text", name
        for name in ("etc/circle", "none"):
            with pytest.raises(KeyError):
                image.read(name)


def listed(image: ImageArchive) -> dict[str, Any]:
    return contents.listed(image, "runkeys-operator", LOCK, MADE)


def test_the_list_has_system_packages_python_and_its_packages(tmp_path: Path) -> None:
    with opened(archive(tmp_path / "x.tar", FILES, environment=("PYTHON_VERSION=3.13.9",))) as image:
        document = listed(image)

    assert [item["bom-ref"] for item in document["components"]] == [
        "debian@13",
        "pkg:deb/debian/libc6@2.41?arch=arm64",
        "pkg:generic/python@3.13.9",
        "pkg:pypi/kopf@1.45.2",
        "pkg:pypi/runkeys@1.2.3",
    ]
    main = document["metadata"]["component"]
    assert (main["type"], main["bom-ref"]) == ("container", "runkeys-operator@1.2.3")
    assert main["properties"] == [{"name": "runkeys:platform", "value": "linux/arm64"}]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None


def test_debians_own_python_is_one_of_its_packages(tmp_path: Path) -> None:
    python = "\nPackage: python3.13-minimal\nStatus: install ok installed\nArchitecture: arm64\nVersion: 3.13.5-2\n"
    with opened(archive(tmp_path / "x.tar", FILES | {"var/lib/dpkg/status": STATUS + python})) as image:
        refs = [item["bom-ref"] for item in listed(image)["components"]]

    assert "pkg:deb/debian/python3.13-minimal@3.13.5-2?arch=arm64" in refs
    assert not [ref for ref in refs if ref.startswith("pkg:generic")]


def test_an_image_that_cannot_be_listed_whole_is_refused(tmp_path: Path) -> None:
    with (
        opened(archive(tmp_path / "x.tar", FILES)) as image,
        pytest.raises(ValueError, match="whose version"),
    ):
        listed(image)
    without = {name: text for name, text in FILES.items() if name != "app/runkeys/_version.py"}
    with opened(archive(tmp_path / "y.tar", without)) as image, pytest.raises(KeyError):
        listed(image)
