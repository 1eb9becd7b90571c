"""The parts of a release that need no other program: notes, checksums, lists of contents, the chart's image."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import runkeys
from scripts import sbom
from scripts.release import __main__ as release
from scripts.release import checksums, notes, publish
from scripts.release.reference import Image, Registry
from scripts.release.sources import name_image, with_image

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## [Unreleased]

- Later.

## [0.2.0] - 2026-11-29

### Added

- A thing ([docs](docs/thing.md#part)), [another](https://example.org/x) and `[x](y)`, see [above](#top).

## [0.1.0] - 2026-01-02

- First.
"""
DIGEST = f"sha256:{'ab' * 32}"
IMAGE = Image("registry.example/owner/name/runkeys-operator", DIGEST)
REGISTRY = Registry.of("registry.example/Owner/Name/")


def test_notes_are_what_the_changelog_says_of_the_version() -> None:
    text = notes.section(CHANGELOG, "0.2.0")

    assert text.startswith("### Added")
    assert "A thing" in text
    assert "Later" not in text
    assert "First" not in text
    assert notes.section(CHANGELOG, "0.1.0") == "- First."
    assert list(notes.sections(CHANGELOG)) == ["Unreleased", "0.2.0", "0.1.0"]


@pytest.mark.parametrize(
    ("changelog", "version", "message"),
    [
        (CHANGELOG, "0.3.0", r"no section \[0\.3\.0\]; it has Unreleased, 0\.2\.0, 0\.1\.0"),
        (CHANGELOG.replace("- First.\n", ""), "0.1.0", r"says nothing of \[0\.1\.0\]"),
        (CHANGELOG.replace(" - 2026-11-29", ""), "0.2.0", r"\[0\.2\.0\] has no date"),
        (CHANGELOG.replace("[0.1.0]", "[0.2.0]"), "0.2.0", r"two sections \[0\.2\.0\]"),
        ("", "0.1.0", "it has none"),
    ],
)
def test_a_changelog_that_is_not_ready_is_refused(changelog: str, version: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        notes.section(changelog, version)


def test_links_of_the_notes_lead_to_the_files_of_the_version() -> None:
    text = notes.with_links(notes.section(CHANGELOG, "0.2.0"), "https://host.example/o/n/blob/v0.2.0/")

    assert "[docs](https://host.example/o/n/blob/v0.2.0/docs/thing.md#part)" in text
    assert "[another](https://example.org/x)" in text
    assert "`[x](y)`" in text
    assert "[above](#top)" in text


def test_notes_say_how_to_install_and_verify_what_was_pushed() -> None:
    text = notes.notes(CHANGELOG, "0.2.0", REGISTRY, IMAGE, "", "Owner/Name")

    assert text.startswith("### Added")
    assert "helm install runkeys oci://registry.example/owner/name/charts/runkeys --version 0.2.0" in text
    assert text.count(f"{IMAGE.repository}@{DIGEST}") == 3
    assert "/Owner/Name/.github/workflows/release.yml@refs/tags/v0.2.0" in text
    # Nothing was pushed: nothing to install.
    assert notes.notes(CHANGELOG, "0.2.0", REGISTRY, None, "", "Owner/Name").count("##") == 1
    # A version that is not in it yet.
    assert notes.notes(CHANGELOG, "0.3.0", None, None, "", "") == "- Later.\n"


def test_the_projects_own_changelog_can_be_read() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()

    assert notes.notes(text, runkeys.__version__, None, None, "", "")


@pytest.mark.parametrize(
    ("kind", "name", "fails"),
    [
        ("tag", f"v{runkeys.__version__}x", f"is not v{runkeys.__version__}"),
        ("tag", "v9.9.9", f"is not v{runkeys.__version__}"),
        ("branch", "v9.9.9", ""),
        ("", "", ""),
    ],
)
def test_a_tag_that_is_not_the_versions_is_refused(
    kind: str, name: str, fails: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_REF_TYPE", kind)
    monkeypatch.setenv("GITHUB_REF_NAME", name)
    monkeypatch.setattr("sys.argv", ["release", "check"])
    if fails:
        with pytest.raises(SystemExit, match=fails):
            release.main()
        return

    assert release.main() == 0
    assert capsys.readouterr().out == f"trial of {runkeys.__version__}\n"


def test_a_tag_needs_its_section_in_the_changelog(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_REF_TYPE", "tag")
    monkeypatch.setenv("GITHUB_REF_NAME", f"v{runkeys.__version__}")
    monkeypatch.setattr("sys.argv", ["release", "check"])
    monkeypatch.setattr(
        release, "_changelog", lambda: CHANGELOG.replace(f"[{runkeys.__version__}]", "[0.0.1]")
    )

    assert release.main() == 1
    assert f"no section [{runkeys.__version__}]" in capsys.readouterr().err

    monkeypatch.setattr(release, "_changelog", lambda: f"## [{runkeys.__version__}] - 2026-11-29\n\n- All.\n")
    assert release.main() == 0


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    checksums.write(tmp_path)

    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=False, timeout=180
    )
    assert done.returncode == 0
    assert checksums.read(tmp_path)["a b.txt"] == hashlib.sha256(b"one").hexdigest()
    (tmp_path / "SHA256SUMS.sigstore.json").write_text("{}")
    checksums.check(tmp_path)


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_a_file_that_is_not_as_listed_is_named(tmp_path: Path, change: str) -> None:
    for name in ("kept", "other"):
        (tmp_path / name).write_text(name)
    checksums.write(tmp_path)
    path = tmp_path / ("new" if change == "added" else "other")
    path.unlink(missing_ok=True)
    if change != "removed":
        path.write_text("else")

    with pytest.raises(ValueError, match=f"SHA256SUMS has it: {path.name}$"):
        checksums.check(tmp_path)


def test_names_in_a_registry_are_in_lower_case() -> None:
    assert REGISTRY.image == "registry.example/owner/name/runkeys-operator"
    assert REGISTRY.chart == "oci://registry.example/owner/name/charts/runkeys"
    assert (REGISTRY.is_local, Registry.of("127.0.0.1:5000/x").is_local) == (False, True)


@pytest.mark.parametrize(
    "text", ["", "name:tag", f"Name@{DIGEST}", f"name@{DIGEST[:-1]}", f"a b@{DIGEST}", DIGEST]
)
def test_an_image_without_a_digest_is_refused(text: str) -> None:
    with pytest.raises(SystemExit, match="no image with a digest"):
        Image.parse(text)


def test_an_image_is_handed_from_step_to_step(tmp_path: Path) -> None:
    IMAGE.write(tmp_path / "parts" / "image.json")

    assert Image.read(tmp_path / "parts" / "image.json") == IMAGE == Image.parse(str(IMAGE))


def test_the_workflow_gets_what_was_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "output"
    target.write_text("before=1\n")
    monkeypatch.setenv("GITHUB_OUTPUT", str(target))
    publish.outputs({"image-digest": DIGEST})

    assert target.read_text() == f"before=1\nimage-digest={DIGEST}\n"


def test_the_chart_names_the_image_everywhere(tmp_path: Path) -> None:
    for name in ("values.yaml", "README.md", "files/defaults.yaml"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text((ROOT / "helm" / "runkeys" / name).read_text())
    before = yaml.safe_load((tmp_path / "values.yaml").read_text())
    name_image(tmp_path, IMAGE)

    expected = {**before, "image": {**before["image"], "repository": IMAGE.repository, "digest": DIGEST}}
    assert yaml.safe_load((tmp_path / "values.yaml").read_text()) == expected
    assert yaml.safe_load((tmp_path / "files/defaults.yaml").read_text())["image"] == expected["image"]
    assert f'`"{IMAGE.repository}"`' in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("values", ["", "image:\n  tag: x\n", "other:\n  repository: x\n  digest: x\n"])
def test_values_without_an_image_are_refused(values: str) -> None:
    with pytest.raises(ValueError, match=r"no image\."):
        with_image(values, IMAGE)


STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.41-12
Description: text
 Package: not-this

Package: libstdc++6
Status: install ok installed
Architecture: amd64
Version: 1:14.2.0~rc1+x

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1
"""
METADATA = """Metadata-Version: 2.4
Name: Some_Package
Version: 1.2
License-Expression: MIT
Requires-Dist: other>=1
Requires-Dist: extra-only; extra == "more"

# Name: not-this
"""


def documented() -> dict[str, Any]:
    main: dict[str, Any] = {"type": "container", "bom-ref": "main", "name": "image", "version": "1"}
    one = sbom.python_metadata(METADATA)
    two: dict[str, Any] = {"name": "other", "version": "3", "requires_dist": []}
    hashes = sbom.locked_hashes("some-package==1.2 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    components = [sbom.python_component(item, hashes) for item in (one, two)]
    components += sbom.debian_components(STATUS, "debian")
    depends = {**sbom.python_dependencies([one, two]), "main": {item["bom-ref"] for item in components}}
    return sbom.document(main, components, depends, datetime(2026, 11, 29, tzinfo=UTC))


def test_a_list_of_contents_has_packages_of_debian_and_of_python() -> None:
    document = documented()

    assert [item["bom-ref"] for item in document["components"]] == [
        "pkg:deb/debian/libc6@2.41-12?arch=amd64",
        "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2.0~rc1%2Bx?arch=amd64",
        "pkg:pypi/other@3",
        "pkg:pypi/some-package@1.2",
    ]
    needs = {item["ref"]: item["dependsOn"] for item in document["dependencies"]}
    assert needs["pkg:pypi/some-package@1.2"] == ["pkg:pypi/other@3"]
    assert len(needs["main"]) == 4
    [python] = [item for item in document["components"] if item["name"] == "Some_Package"]
    assert python["licenses"] == [{"license": {"name": "MIT"}}]
    assert python["properties"] == [{"name": "runkeys:locked-sha256", "value": "0" * 64}]


def test_a_list_of_contents_is_valid_and_the_same_each_time() -> None:
    document = documented()
    validate = JsonStrictValidator(SchemaVersion.V1_6).validate_str

    assert validate(json.dumps(document)) is None
    assert validate(json.dumps({**document, "components": [{"name": "no type"}]})) is not None
    assert documented() == document


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cosign and a gh that write down what they are called with, for those that only GitHub has a login for."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    for name in ("cosign", "gh"):
        program = programs / name
        program.write_text(f'#!/bin/sh\n[ "${{FAILS:-}}" != "$1" ] || exit 1\necho "{name} $*" >> {calls}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return calls


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """The files of a release, as far as publishing them goes."""
    folder = tmp_path / "dist"
    folder.mkdir()
    version = runkeys.__version__
    for name in (f"runkeys-{version}.tar.gz", f"runkeys-chart-{version}.tgz", "NOTES.md"):
        (folder / name).write_text(name)
    checksums.write(folder)
    (tmp_path / "parts").mkdir()
    IMAGE.write(tmp_path / "parts" / release.INDEX)
    Image(f"{REGISTRY.root}/charts/runkeys", DIGEST).write(tmp_path / "parts" / release.CHART)
    return folder


def step(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["release", name, str(folder), f"--parts={folder.parent / 'parts'}"])
    return release.main()


def test_what_is_signed_is_named_by_its_digest(
    called: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert step("sign", made, monkeypatch) == 0
    assert called.read_text().splitlines() == [
        f"cosign sign --yes {IMAGE}",
        f"cosign sign --yes {REGISTRY.root}/charts/runkeys@{DIGEST}",
        f"cosign sign-blob --yes --bundle {made}/SHA256SUMS.sigstore.json {made}/SHA256SUMS",
    ]


def test_nothing_is_signed_if_a_file_is_not_as_listed(
    called: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (made / "NOTES.md").write_text("changed")

    assert step("sign", made, monkeypatch) == 1
    assert "NOTES.md" in capsys.readouterr().err
    assert not called.exists()


def test_a_signature_that_fails_ends_the_step(
    called: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "sign-blob")
    with pytest.raises(SystemExit, match="cosign sign-blob failed"):
        step("sign", made, monkeypatch)
    assert len(called.read_text().splitlines()) == 2


def test_the_page_has_every_file_and_the_notes(
    called: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made / publish.BUNDLE).write_text("{}")
    version = runkeys.__version__

    assert step("page", made, monkeypatch) == 0
    assert called.read_text().split() == [
        *f"gh release create v{version} --verify-tag --title v{version}".split(),
        *("--notes-file", str(made / "NOTES.md")),
        *(str(made / name) for name in ("SHA256SUMS", "SHA256SUMS.sigstore.json")),
        *(str(made / name) for name in (f"runkeys-{version}.tar.gz", f"runkeys-chart-{version}.tgz")),
    ]


def test_the_steps_of_the_workflow_find_what_was_pushed(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    parts = made.parent / "parts"
    (parts / "runkeys-operator-linux-amd64.cdx.json").write_text("{}")

    assert step("outputs", made, monkeypatch) == 0
    found = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert found == {
        "image-repository": IMAGE.repository,
        "image-digest": DIGEST,
        "chart-repository": f"{REGISTRY.root}/charts/runkeys",
        "chart-digest": DIGEST,
        "image-contents": str(parts / "runkeys-operator-linux-amd64.cdx.json"),
    }
    # In the job of one platform there is that platform's image only.
    (parts / release.INDEX).unlink()
    (parts / release.CHART).unlink()
    Image(IMAGE.repository, DIGEST.replace("ab", "cd")).write(parts / "image-arm64.json")
    assert step("outputs", made, monkeypatch) == 0
    assert f"image-digest={DIGEST.replace('ab', 'cd')}\n" in capsys.readouterr().out


def test_without_a_registry_nothing_is_pushed(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGISTRY", raising=False)
    for name in ("index", "chart"):
        with pytest.raises(SystemExit, match=r"REGISTRY=registry\.example/owner/name"):
            step(name, made, monkeypatch)
