"""The images of tests and demo where Docker makes them: on systems other than Linux, or without busybox."""

from __future__ import annotations

import re

import pytest

from scripts.image.archive import ImageArchive, opened
from testing.cluster import docker, docker_images, images
from testing.cluster.docker import Engine
from tests.image.conftest import BASE
from tests.image.test_same_recipe import contents, differences


@pytest.fixture(autouse=True)
def by_docker(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:  # noqa: ARG001 -- kept running
    monkeypatch.setenv(images.HOW_VARIABLE, "docker")
    monkeypatch.setenv(docker_images.BASE_VARIABLE, BASE)


def test_the_operators_image_is_that_of_make_image(image: ImageArchive) -> None:
    with opened(images.operator_image()) as found:
        assert found.config["Entrypoint"] == image.config["Entrypoint"]
        assert found.tags == [images.OPERATOR_IMAGE]
        assert differences(contents(found), contents(image)) == []


def test_the_tasks_image_has_python_and_a_shell(engine: Engine) -> None:
    with opened(images.task_image()) as found:
        assert found.tags == [images.TASK_IMAGE]
        assert found.environment["HOME"] == "/tmp"
    program = 'test -n "$HOME" && python3 -c "print(6 * 7)"'
    assert engine.run("run", "--rm", "--network=none", images.TASK_IMAGE, "sh", "-c", program).strip() == "42"


def test_the_sdks_image_has_what_a_task_imports(engine: Engine) -> None:
    with opened(images.sdk_image()) as found:
        assert found.config["User"] == f"{images.USER}:{images.USER}"
        assert any(re.fullmatch(r"app/examples/.*\.py", name) for name in found.files)
    run = ("run", "--rm", "--network=none", "--read-only", images.SDK_IMAGE, "python3")
    assert "Usage: runkeys" in engine.run(*run, "-m", "runkeys", "--help")
    with pytest.raises(docker.DockerError, match="ModuleNotFoundError"):
        engine.run(*run, "-c", "import runkeys_operator")
