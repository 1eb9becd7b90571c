"""The README's ten minutes, word by word, from an empty folder on a new cluster.

What differs from a reader's: the images, which the node has already, and that values come by standard input.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testing.cluster import images
from testing.cluster.cache import CHECKOUT
from testing.cluster.node import NodeCluster
from testing.namespace import TASK_IMAGE, canary
from tests.e2e.conftest import OwnNode
from tests.unit.cli.terminal import environment

pytestmark = pytest.mark.e2e

_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TAG = images.OPERATOR_IMAGE.rpartition(":")[2]
REPLACED = {
    "--set image.repository=registry.example/runkeys-operator": f"--set image.tag={TAG}",
    "python:3.13-slim": TASK_IMAGE,
}


def ten_minutes() -> list[tuple[str, str]]:
    """Language and text of each block of that section."""
    section = (CHECKOUT / "README.md").read_text().partition("## Ten minutes\n")[2].partition("\n## ")[0]
    for old, new in REPLACED.items():
        assert old in section
        section = section.replace(old, new)
    return [(found[1], found[2]) for found in _BLOCK.finditer(section)]


class Reader:
    """Somebody who copies the blocks into files and a shell."""

    def __init__(self, node: NodeCluster, folder: Path) -> None:
        tools = folder / "tools"
        tools.mkdir()
        for name, words in (("runkeys", "-m runkeys"), ("python3", "")):
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            (tools / name).chmod(0o755)
        self.folder = folder / "work"
        self.folder.mkdir()
        cluster = node.environment()
        more = {"KUBECONFIG": cluster["KUBECONFIG"], "PATH": f"{tools}{os.pathsep}{cluster['PATH']}"}
        self._environment = {**environment(self.folder), **more}

    def write(self, text: str) -> None:
        """A file, named in its first line."""
        name = text.splitlines()[0].removeprefix("# ")
        assert re.fullmatch(r"\w+\.py", name), text
        (self.folder / name).write_text(text)

    def type(self, commands: str, stdin: str) -> str:
        """Into a shell that ends with the first command that fails. Returns what was printed."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self._environment,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}"
        return done.stdout


def test_it_works_as_it_is_written(own_node: OwnNode, tmp_path: Path) -> None:
    node = own_node()
    node.load_image(images.operator_image())
    node.load_image(images.task_image())
    reader, value, printed = Reader(node, tmp_path), canary(), []
    for language, text in ten_minutes():
        if language == "python":
            reader.write(text)
        else:
            printed.append(reader.type(text, value))
    local, installed, ran, after, from_python = printed
    assert "a token of 18 characters" in local
    assert "the operator is ready" in installed
    assert "Released: yes" in ran
    assert f"a token of {len(value)} characters" in after
    assert re.search(r"^main +Succeeded +1 +SECRET_API_TOKEN gone", after, re.MULTILINE), after
    assert "rk-" not in after
    assert re.search(r"^\S+ Succeeded \d", from_python, re.MULTILINE), from_python
    assert value not in "".join(printed)
    assert node.etcd.find(value.encode()), "the run's Secret had it"
    assert [key for key in node.etcd.find(value.encode()) if "/secrets/default/rk-first-" not in key] == []
