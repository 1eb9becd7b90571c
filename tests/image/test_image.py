"""Who the image runs as, what it may change, how large it is, and what is in it."""

from __future__ import annotations

import json
import re
import stat

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import runkeys
from scripts.image import build
from scripts.image.archive import ImageArchive
from testing.cluster import docker, images
from testing.cluster.cache import CHECKOUT
from testing.cluster.dockerfile import Recipe
from tests.image.conftest import TAG, Container

# What the layers above the base may be together. With the Kubernetes client they would be more than twice as much.
OWN_BYTES = 65_000_000
TRY = """
import errno, json, os
def written(path):
    try:
        with open(path, "w") as file:
            file.write("x")
    except OSError as error:
        return errno.errorcode[error.errno]
    os.unlink(path)
    return "written"
paths = ("/x", "/app/x", "/app/runkeys/x", "/app/site-packages/x", "/usr/bin/x", "/etc/x", "/var/x", "/tmp/x")
print(json.dumps({"user": [os.getuid(), os.getgid()], "written": {path: written(path) for path in paths}}))
"""


def test_it_starts_read_only_without_capabilities_and_network(
    engine: docker.Engine, made: build.Made
) -> None:
    assert "--lease" in build.run(engine, TAG, "--help")
    assert runkeys.__version__ in build.run(engine, TAG, "--version")
    assert made.architecture in ("amd64", "arm64")
    # A container that fails is seen.
    with pytest.raises(docker.DockerError, match="No such option"):
        build.run(engine, TAG, "--no-such-option")


def test_it_runs_as_nobody_who_could_change_it(image: ImageArchive, container: Container) -> None:
    assert image.config["User"] == f"{images.USER}:{images.USER}"
    found = container.python(TRY, writable=True)

    assert found["user"] == [images.USER, images.USER]
    assert {path for path, done in found["written"].items() if done == "written"} == {"/tmp/x"}
    assert found["written"]["/app/x"] == "EACCES"
    # Control: it is the user that keeps it from writing.
    as_root = container.python(TRY, writable=True, user="0:0")
    assert set(as_root["written"].values()) == {"written"}


def test_with_a_read_only_file_system_nothing_at_all_is_written(container: Container) -> None:
    assert set(container.python(TRY, user="0:0")["written"].values()) == {"EROFS"}


def test_all_files_are_roots_and_nobody_elses_to_change(image: ImageArchive) -> None:
    own = [(name, entry) for layer in image.layers[1:] for name, entry in layer.files.items()]

    assert len(own) > 1000
    assert [name for name, entry in own if (entry.uid, entry.gid) != (0, 0)] == []
    assert [name for name, entry in own if not entry.issym() and entry.mode & 0o022] == []
    assert [name for name, entry in own if entry.mode & (stat.S_ISUID | stat.S_ISGID)] == []
    # The search finds such files: Debian has some, which no-new-privileges makes harmless.
    base = image.layers[0].files.values()
    assert [entry.name for entry in base if entry.mode & stat.S_ISUID]


def test_its_layers_are_the_base_and_what_the_dockerfile_adds(image: ImageArchive) -> None:
    recipe = Recipe.read(images.DOCKERFILE)
    added = {name for layer in image.layers[1:] for name, entry in layer.files.items() if not entry.isdir()}

    assert {name.partition("/")[0] for name in added} == {recipe.directory.strip("/")}
    assert 0 < sum(layer.size for layer in image.layers[1:]) < OWN_BYTES


def test_every_module_of_ours_is_compiled(image: ImageArchive) -> None:
    files = set(image.files)
    modules = [name for name in files if re.fullmatch(r"app/runkeys(_operator)?/.*\.py", name)]
    compiled = {
        re.sub(r"__pycache__/([^/]+)\.cpython-\d+\.pyc$", r"\1.py", name)
        for name in files
        if name.endswith(".pyc")
    }

    assert len(modules) > 100
    assert [name for name in modules if name not in compiled] == []


def test_the_list_of_contents_is_what_is_there(made: build.Made, container: Container) -> None:
    """Compared with what dpkg and Python say inside."""
    document = json.loads(made.contents.read_text())
    found = container.python(
        "import importlib.metadata, json, subprocess\n"
        "query = ['dpkg-query', '-W', '-f', '${Package} ${Version}\\n']\n"
        "told = subprocess.run(query, capture_output=True, text=True)\n"
        "names = {d.name: d.version for d in importlib.metadata.distributions(path=['/app/site-packages'])}\n"
        "print(json.dumps({'debian': told.stdout.splitlines(), 'python': names}))"
    )
    components = document["components"]
    debian = {f"{c['name']} {c['version']}" for c in components if c["bom-ref"].startswith("pkg:deb/")}
    python = {c["name"]: c["version"] for c in components if c["bom-ref"].startswith("pkg:pypi/")}

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document)) is None
    assert debian == set(found["debian"])
    # Python itself, as a package of Debian or beside them.
    assert [
        c for c in components if c["name"] == "python" or re.fullmatch(r"python3\.\d+-minimal", c["name"])
    ]
    assert found["python"].items() <= python.items()
    assert python["runkeys"] == runkeys.__version__
    locked = dict(
        re.findall(
            r"^([A-Za-z0-9._-]+)==([^ ;\\]+) \\$",
            (CHECKOUT / "requirements" / "operator.txt").read_text(),
            re.MULTILINE,
        )
    )
    assert (
        locked.items()
        <= {name.lower().replace("_", "-"): version for name, version in python.items()}.items()
    )
    assert {c["bom-ref"] for c in components if c.get("properties")} >= {
        f"pkg:pypi/{name}@{version}" for name, version in locked.items()
    }
