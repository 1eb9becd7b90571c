"""operator/Dockerfile is read for the image of the tests: what is in it, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testing.cluster import docker_images, images, python_files
from testing.cluster.cache import CHECKOUT
from testing.cluster.docker import Engine
from testing.cluster.dockerfile import DockerfileError, Recipe

TEXT = images.DOCKERFILE.read_text()


def test_the_recipe_is_what_the_dockerfile_says() -> None:
    recipe = Recipe.read(images.DOCKERFILE)

    assert recipe.user == f"{images.USER}:{images.USER}"
    assert recipe.entrypoint == ("python3", "-m", "runkeys_operator")
    assert recipe.environment["PYTHONPATH"] == f"{recipe.directory}:{recipe.dependencies}"
    assert recipe.copies == {
        "LICENSE": "/app/LICENSE",
        "operator/runkeys": "/app/runkeys",
        "operator/runkeys_operator": "/app/runkeys_operator",
    }
    assert recipe.lock == "requirements/operator.txt"
    assert recipe.ports == ("8080",)


def test_a_change_of_the_dockerfile_changes_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(
        TEXT.replace("USER 65532:65532", "USER 7:8")
        .replace("PYTHONUNBUFFERED=1", 'PYTHONUNBUFFERED=1 \\\n  OTHER="a b"')
        .replace("COPY LICENSE /app/LICENSE", "COPY LICENSE /app/LICENSE\nCOPY README.md /app/more/README.md")
    )
    recipe, before = Recipe.read(path), Recipe.read(images.DOCKERFILE)

    assert recipe.user == "7:8"
    assert recipe.environment == {**before.environment, "OTHER": "a b"}
    assert recipe.copies == {**before.copies, "README.md": "/app/more/README.md"}


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("USER 65532:65532\n", "", "0 lines USER"),
        ("WORKDIR", "VOLUME", "unknown instruction: VOLUME"),
        ("COPY LICENSE /app/LICENSE", "COPY LICENSE /app/", "whole path"),
        ("COPY LICENSE /app/LICENSE", "COPY LICENSE README.md /app/x", "whole path"),
        ("--require-hashes", "", "no pip install"),
        ("--target=/app/site-packages", "", "no pip install"),
        ("COPY requirements/operator.txt /build/operator.txt\n", "", "does not copy it"),
        ("COPY --from=build /app /app", "COPY --from=build /app /opt", "the same path"),
        ("FROM ${BASE} AS build", "FROM scratch\nFROM ${BASE} AS build", "3 stages"),
    ],
)
def test_what_the_tests_own_image_could_not_follow_is_refused(
    right: str, wrong: str, message: str, tmp_path: Path
) -> None:
    assert right in TEXT
    path = tmp_path / "Dockerfile"
    path.write_text(TEXT.replace(right, wrong))

    with pytest.raises(DockerfileError, match=message):
        Recipe.read(path)


def test_the_tests_run_with_what_the_lock_file_has(tmp_path: Path) -> None:
    lock = CHECKOUT / Recipe.read(images.DOCKERFILE).lock
    found = {distribution.name.lower(): distribution.version for distribution in python_files.locked(lock)}
    wanted = python_files.requirements(CHECKOUT / "pyproject.toml", "operator")

    assert len(found) > 10
    assert found == {distribution.name.lower(): distribution.version for distribution in wanted}
    other = tmp_path / "operator.txt"
    other.write_text(re.sub(r"^kopf==\S+", "kopf==0.1", lock.read_text(), flags=re.MULTILINE))
    with pytest.raises(LookupError, match=r"operator\.txt has kopf==0\.1, and"):
        python_files.locked(other)


def test_where_docker_makes_the_images_their_base_is_the_dockerfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(docker_images.BASE_VARIABLE, raising=False)
    base = docker_images.base_of_dockerfile()

    assert f"ARG BASE={base}\n" in TEXT
    assert docker_images.base_of(Engine("")) == base
    assert docker_images.base_of(Engine("unix:///own.sock")) == docker_images.DEBIAN
    monkeypatch.setenv(docker_images.BASE_VARIABLE, "other:1")
    assert docker_images.base_of(Engine("unix:///own.sock")) == "other:1"
    assert docker_images.base_of(Engine(""), "third:1") == "third:1"


def test_the_lock_of_the_command_line_is_a_part_of_the_lock_of_the_tools() -> None:
    whole = (CHECKOUT / "requirements" / "dev.txt").read_text()
    part = docker_images.cli_lock()
    names = re.findall(r"^([a-z0-9-]+)==", part, re.MULTILINE)
    wanted = python_files.requirements(CHECKOUT / "pyproject.toml", "cli")

    assert names == sorted(re.sub(r"[-_.]+", "-", distribution.name).lower() for distribution in wanted)
    assert all(line in whole for line in part.splitlines())
    assert part.count("--hash=sha256:") > len(names)
