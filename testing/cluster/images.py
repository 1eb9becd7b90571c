"""Builds container images, without Docker if that can be.

They are made of this machine's own Python, its libraries and a static busybox.

An image is a docker-archive: a tar of layer tars and two JSON files. The cache keeps each layer and each archive under
a hash of its sources, so that only the operator's own sources are packed again when they change.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from testing.cluster import docker_images, dockerfile, python_files
from testing.cluster.cache import CHECKOUT, cache_dir, content_key, forget_unused, made_once
from testing.cluster.docker import docker_answers

TASK_IMAGE = "localhost/runkeys-task:1"
OPERATOR_IMAGE = "localhost/runkeys-operator:dev"
SDK_IMAGE = "localhost/runkeys-sdk-task:1"
PAUSE_IMAGE = "localhost/runkeys-pause:1"
# "docker": Docker makes the images. Without it, it does where this machine's own Python cannot be in one.
HOW_VARIABLE = "RUNKEYS_IMAGES"
DOCKERFILE = CHECKOUT / "operator" / "Dockerfile"
USER = 65532
_KEPT = 4
_RECIPE = (Path(__file__), Path(python_files.__file__), Path(dockerfile.__file__))
_ROOT = {"etc/passwd": "root:x:0:0:root:/:/bin/sh\n", "etc/group": "root:x:0:\n"}
_PASSWD = f"{_ROOT['etc/passwd']}runkeys:x:{USER}:{USER}:runkeys:/tmp:/bin/sh\n"
_GROUP = f"{_ROOT['etc/group']}runkeys:x:{USER}:\n"


@dataclass(frozen=True)
class Image:
    """The description of an image, without its layers."""

    tag: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    directory: str = "/"
    labels: dict[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()

    def config(self, layers: list[Path]) -> bytes:
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(
                platform.machine(), platform.machine()
            ),
            "os": "linux",
            "config": {
                "Entrypoint": list(self.entrypoint),
                "Cmd": list(self.command),
                "Env": [f"{key}={value}" for key, value in self.environment.items()],
                "User": self.user,
                "WorkingDir": self.directory,
                **({"Labels": self.labels} if self.labels else {}),
                **({"ExposedPorts": {f"{port}/tcp": {} for port in self.ports}} if self.ports else {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}" for layer in layers]},
        }
        return json.dumps(config, sort_keys=True).encode()


def by_docker() -> bool:
    """Whether Docker makes the images: asked for, or because this is not Linux, or there is no busybox for a shell."""
    if named := os.environ.get(HOW_VARIABLE):
        return named == "docker"
    return sys.platform != "linux" or (shutil.which("busybox") is None and docker_answers())


def pause_image(tag: str = PAUSE_IMAGE) -> Path:
    """Return the archive of the image that keeps a pod's namespaces open."""
    layer = _layer("busybox", [_busybox()], lambda root: _copy(_busybox(), root / "bin/busybox"))
    return _archive(Image(tag, entrypoint=("/bin/busybox", "sleep", "2147483647")), [layer])


def task_image() -> Path:
    """Return the archive of ``localhost/runkeys-task:1``: Python and a shell, for the tasks of tests."""
    if by_docker():
        return docker_images.task_image(TASK_IMAGE)
    return _archive(Image(TASK_IMAGE, environment=_environment(), command=("python3",)), [_base_layer()])


def operator_image(checkout: Path = CHECKOUT, tag: str = OPERATOR_IMAGE) -> Path:
    """Return the archive of ``localhost/runkeys-operator:dev``: the operator of this checkout, or of another.

    It is what operator/Dockerfile says, on this machine's Python. tests/image compares it with what Docker makes of it.
    """
    if by_docker():
        return docker_images.operator_image(tag, checkout)
    recipe = dockerfile.Recipe.read(DOCKERFILE)
    image = Image(
        tag,
        environment=_environment() | recipe.environment,
        entrypoint=recipe.entrypoint,
        user=recipe.user,
        directory=recipe.directory,
        labels=recipe.labels,
        ports=recipe.ports,
    )
    layers = [_locked_layer(recipe), _copies_layer(recipe, checkout)]
    return _archive(image, [_base_layer(), *layers])


def sdk_image() -> Path:
    """Return the archive of ``localhost/runkeys-sdk-task:1``: Python, ``runkeys[cli]``, and examples in /app."""
    if by_docker():
        return docker_images.sdk_image(SDK_IMAGE, f"{USER}:{USER}")
    image = Image(
        SDK_IMAGE,
        environment=_environment()
        | {"PYTHONPATH": "/opt/runkeys:/app/site-packages", "PYTHONUNBUFFERED": "1"},
        command=("python3",),
        user=f"{USER}:{USER}",
        directory="/app",
    )
    layers = [_dependencies_layer("cli"), _sources_layer("runkeys", "opt/runkeys"), _examples_layer()]
    return _archive(image, [_base_layer(), *layers])


def program_image(tag: str, program: Path, path: str, user: str = f"{USER}:{USER}") -> Path:
    """Return the archive of an image with one static program, whose name says what it was built from, and no shell."""

    def fill(root: Path) -> None:
        for folder in ("etc", "tmp"):
            (root / folder).mkdir()
        (root / "etc/passwd").write_text(_PASSWD)
        (root / "etc/group").write_text(_GROUP)
        _copy(program, root / path)

    image = Image(tag, environment={"PATH": "/bin"}, entrypoint=(f"/{path}",), user=user)
    return _archive(image, [_layer(program.name.rpartition("-")[0], [program.name, path], fill)])


def filled_image(
    image: Image, name: str, made_from: list[Path | str], fill: Callable[[Path], None], below: list[Path]
) -> Path:
    """Return the archive of an image: the layers below, and one whose files ``fill`` writes into an empty folder.

    :param made_from: what the layer's content depends on.
    """
    return _archive(image, [*below, _layer(name, made_from, fill)])


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}


def _base_layer() -> Path:
    executable = python_files.executable()
    return _layer(
        "python", [executable, _busybox(), sys.version, str(python_files.stdlib_folders())], _fill_base
    )


def _fill_base(root: Path) -> None:
    for folder in ("bin", "etc", "tmp", "usr/local/bin", "var", "app"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(_PASSWD)
    (root / "etc/group").write_text(_GROUP)
    _copy(_busybox(), root / "bin/busybox")
    for applet in python_files.output("busybox", "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "usr/bin").mkdir(exist_ok=True)
    (root / "usr/bin/env").symlink_to("/bin/busybox")
    python_files.copy_interpreter(root)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(python_files.executable())


def _dependencies_layer(extra: str) -> Path:
    wanted = python_files.requirements(CHECKOUT / "pyproject.toml", extra)
    versions = ",".join(sorted(f"{d.name}=={d.version}" for d in wanted))

    def fill(root: Path) -> None:
        python_files.copy_distributions(wanted, root, "app/site-packages")

    return _layer(f"dependencies-{extra}", [versions, sys.version], fill)


def _locked_layer(recipe: dockerfile.Recipe) -> Path:
    """Return a layer with the packages of the lock file, in its versions."""
    wanted = python_files.locked(CHECKOUT / recipe.lock)
    versions = ",".join(sorted(f"{d.name}=={d.version}" for d in wanted))

    def fill(root: Path) -> None:
        python_files.copy_distributions(wanted, root, recipe.dependencies.lstrip("/"))

    return _layer("dependencies-operator", [versions, recipe.dependencies, sys.version], fill)


def _copies_layer(recipe: dockerfile.Recipe, checkout: Path) -> Path:
    copies = {checkout / source: target.lstrip("/") for source, target in recipe.copies.items()}
    # The base that the Dockerfile names knows no user of this number, so that the operator may not need its name. The
    # release before did.
    return _files_layer("runkeys_operator", copies, _ROOT if checkout == CHECKOUT else {})


def _sources_layer(package: str, into: str) -> Path:
    return _files_layer(package, {CHECKOUT / "operator" / package: f"{into}/{package}"})


def _files_layer(name: str, copies: dict[Path, str], texts: dict[str, str] | None = None) -> Path:
    """Return a layer with files and folders at these paths, its modules compiled, and with files of these texts."""
    files = {
        path: f"{target}/{path.relative_to(source)}" if source.is_dir() else target
        for source, target in copies.items()
        for path in (sorted(source.rglob("*")) if source.is_dir() else [source])
        if path.is_file() and "__pycache__" not in path.parts
    }

    def fill(root: Path) -> None:
        for path, target in files.items():
            _copy(path, root / target)
        for top in sorted({target.partition("/")[0] for target in files.values()}):
            python_files.compile_all(root / top, root)
        for target, text in (texts or {}).items():
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (root / target).write_text(text)

    return _layer(name, [sys.version, str(texts), *files.values(), *files], fill)


def _examples_layer() -> Path:
    files = [
        path for path in sorted((CHECKOUT / "examples").rglob("*.py")) if "__pycache__" not in path.parts
    ]

    def fill(root: Path) -> None:
        for path in files:
            _copy(path, root / "app" / path.relative_to(CHECKOUT))

    return _layer("examples", [*map(str, files), *files], fill)


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise FileNotFoundError("Images need busybox-static: run scripts/system-packages.")
    return Path(found)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _layer(name: str, made_from: list[Path | str], fill: Callable[[Path], None]) -> Path:
    """Return a layer's tar from the cache. If it is missing, ``fill`` writes its files into an empty folder."""
    folder = cache_dir() / "images"

    def make(unfinished: Path) -> None:
        root = unfinished.with_name("root")
        root.mkdir()
        fill(root)
        _pack(root, unfinished)

    layer = made_once(folder / f"{name}-{content_key(*_RECIPE, *made_from)}.layer.tar", make)
    # Each change of the operator's sources adds a new layer of some size.
    forget_unused(folder, f"{name}-*.layer.tar", _KEPT)
    forget_unused(folder, f"{name}-*.layer.sha256", _KEPT)
    return layer


def _pack(root: Path, target: Path) -> None:
    """Write a folder as a tar whose bytes depend on names, modes and contents only."""
    with tarfile.open(target, "w") as tar:
        for path in sorted(root.rglob("*")):
            entry = tar.gettarinfo(path, arcname=str(path.relative_to(root)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            if entry.islnk():
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            if entry.name == "tmp":
                entry.mode = 0o1777
            elif not entry.issym():
                entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            if entry.isreg():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)


def _archive(image: Image, layers: list[Path]) -> Path:
    """Return the image as a docker-archive file."""
    config = image.config(layers)
    digest = hashlib.sha256(config).hexdigest()
    name = image.tag.rpartition("/")[2].replace(":", "-")
    folder = cache_dir() / "images"
    names = [f"{_sha256(layer)}.tar" for layer in layers]

    def make(unfinished: Path) -> None:
        with tarfile.open(unfinished, "w") as tar:
            manifest = [{"Config": f"{digest}.json", "RepoTags": [image.tag], "Layers": names}]
            _add(tar, "manifest.json", json.dumps(manifest).encode())
            _add(tar, f"{digest}.json", config)
            for layer, layer_name in zip(layers, names, strict=True):
                entry = tarfile.TarInfo(layer_name)
                entry.size = layer.stat().st_size
                with layer.open("rb") as content:
                    tar.addfile(entry, content)

    archive = made_once(folder / f"{name}-{digest[:16]}.tar", make)
    forget_unused(folder, f"{name}-????????????????.tar", _KEPT)
    return archive


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _sha256(path: Path) -> str:
    """Return the hash of a layer. It is stored beside the layer, since a big one takes a tenth of a second."""

    def make(unfinished: Path) -> None:
        with path.open("rb") as content:
            unfinished.write_text(hashlib.file_digest(content, "sha256").hexdigest())

    return made_once(path.with_suffix(".sha256"), make).read_text()
