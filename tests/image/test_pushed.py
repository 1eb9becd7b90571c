"""`make release STEP=image`: what Docker built is pushed, and is the image that was tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runkeys
from scripts.image import build
from scripts.image.archive import opened
from scripts.release.reference import Image
from testing.cluster import build as programs
from testing.cluster import docker, docker_images
from testing.cluster.cache import CHECKOUT
from testing.cluster.registry import registry
from tests.image.conftest import BASE, MADE


def test_the_image_that_was_tried_is_pushed_with_its_list(
    made: build.Made, engine: docker.Engine, tmp_path: Path
) -> None:
    parts = tmp_path / "parts"
    with registry(tmp_path / "log") as address:
        environment = {
            "REGISTRY": f"{address}/Owner/Name",
            docker_images.BASE_VARIABLE: BASE,
            "GITHUB_REPOSITORY": "Owner/Name",
            "GITHUB_SERVER_URL": "https://host.example",
        }
        done = subprocess.run(
            [sys.executable, "-m", "scripts.release", "image", f"--parts={parts}"],
            cwd=CHECKOUT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        pushed = Image.read(parts / f"image-{made.architecture}.json")
        crane = [str(programs.program("crane")), "config", "--insecure", str(pushed)]
        config = json.loads(
            subprocess.run(crane, capture_output=True, text=True, check=True, timeout=180).stdout
        )

    assert pushed.repository == f"{address}/owner/name/runkeys-operator"
    assert config["architecture"] == made.architecture
    assert config["config"]["Entrypoint"] == ["python3", "-m", "runkeys_operator"]
    labels = config["config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == runkeys.__version__
    assert labels["org.opencontainers.image.source"] == "https://host.example/Owner/Name"
    listed = parts / f"runkeys-operator-{runkeys.__version__}-linux-{made.architecture}.cdx.json"
    assert json.loads(listed.read_text())["metadata"]["component"]["version"] == runkeys.__version__
    assert engine.run(
        "image", "inspect", "--format", "{{.Config.User}}", "runkeys-operator:release"
    ).strip() == ("65532:65532")


def test_a_base_that_is_pulled_is_built_on_by_its_digest(engine: docker.Engine, tmp_path: Path) -> None:
    """As the release does with the base that the Dockerfile names."""
    with registry(tmp_path / "log") as address:
        name = f"{address}/base:1"
        base = docker_images.save(engine, docker_images.debian_base(engine), tmp_path / "base.tar")
        crane = [str(programs.program("crane")), "push", "--insecure", str(base), name]
        subprocess.run(crane, capture_output=True, check=True, timeout=300)
        pulled = docker_images.pulled(engine, name)
        labelled = build.make(name, "localhost/runkeys-operator:pulled", tmp_path / "made", MADE, {"x": "y"})
    with opened(labelled.archive) as found:
        labels = found.config["Labels"]

    assert pulled.startswith(f"{address}/base@sha256:")
    assert labels["org.opencontainers.image.base.name"] == name
    assert labels["org.opencontainers.image.base.digest"] == pulled.partition("@")[2]
    assert labels["x"] == "y"


def test_a_base_that_is_not_there_is_said(engine: docker.Engine) -> None:
    with pytest.raises(docker.DockerError, match="docker build ended"):
        docker_images.build(
            engine, "localhost/none:1", docker_images.DOCKERFILE, CHECKOUT, base="localhost/no-such-base:1"
        )
