"""The image of the end-to-end tests, made without Docker, holds what Docker makes of operator/Dockerfile."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import pytest

from scripts.image.archive import ImageArchive, opened
from testing.cluster import images

# What depends on the Python that a wheel is for, and what pip and uv write down in different words.
_OF_PYTHON = re.compile(
    r"\.so(\.\d+)*$|__pycache__|\.dist-info/(sboms/.*|RECORD|WHEEL|INSTALLER|REQUESTED|direct_url\.json)$"
)
# Commands of packages, which nothing in the image calls.
_COMMANDS = re.compile(r"app/site-packages/bin/")


@pytest.fixture(scope="module")
def tests_own() -> Iterator[ImageArchive]:
    with opened(images.operator_image()) as archive:
        yield archive


def contents(image: ImageArchive) -> dict[str, str]:
    """Digests of what is in /app, by path."""
    return {
        name: hashlib.sha256(image.read(name)).hexdigest()
        for name, entry in image.files.items()
        if name.startswith("app/")
        and entry.isfile()
        and not _OF_PYTHON.search(name)
        and not _COMMANDS.match(name)
    }


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def test_both_run_the_same_in_the_same_way(image: ImageArchive, tests_own: ImageArchive) -> None:
    for key in ("Entrypoint", "User", "WorkingDir", "ExposedPorts"):
        assert image.config[key] == tests_own.config[key], key
    for name, value in image.environment.items():
        assert name == "PATH" or tests_own.environment[name] == value, name
    # What the tests' own has beyond that is of its base.
    assert tests_own.environment.keys() - image.environment.keys() <= {"LANG", "HOME"}
    assert tests_own.config["Labels"].items() <= image.config["Labels"].items()


def test_both_hold_the_same_files(image: ImageArchive, tests_own: ImageArchive) -> None:
    docker, own = contents(image), contents(tests_own)

    assert len(own) > 800
    assert differences(docker, own) == []
    # Controls: one that is missing, added or changed would be found.
    name = "app/runkeys/names.py"
    assert differences(docker, {key: value for key, value in own.items() if key != name}) == [name]
    assert differences(docker, own | {"app/new": ""}) == ["app/new"]
    assert differences(docker, own | {name: ""}) == [name]


def test_both_have_a_library_for_each_that_the_other_has(
    image: ImageArchive, tests_own: ImageArchive
) -> None:
    """Their names differ by the version of Python only."""
    docker, own = (
        {
            re.sub(r"\.(cpython-\d+|abi3)[^/]*\.so$", ".so", name)
            for name in found.files
            if name.endswith(".so")
        }
        for found in (image, tests_own)
    )
    docker, own = ({name for name in found if name.startswith("app/")} for found in (docker, own))

    assert len(own) > 5
    assert docker == own


def test_in_both_the_user_has_no_name(image: ImageArchive, tests_own: ImageArchive) -> None:
    """Code that asks for it fails in both: once kopf did, and the operator ran in the tests' own image only."""
    for found in (image, tests_own):
        users = [line.split(":")[2] for line in found.read("etc/passwd").decode().splitlines()]
        assert "0" in users
        assert str(images.USER) not in users
