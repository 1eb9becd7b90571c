"""The files of a Python interpreter and its packages, wherever the machine keeps them."""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement

# Useless for an operator or a task: tests, graphical interfaces, installers, other people's packages.
_LEFT_OUT = shutil.ignore_patterns(
    *("site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo"),
    *("ensurepip", "lib2to3", "pydoc_data", "config-*", "_tkinter*", "_test*", "*.a"),
)


def executable() -> Path:
    """Return the interpreter itself, behind virtual environments and symbolic links."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return Path(os.path.realpath(base))


def stdlib_folders() -> list[Path]:
    """Return the folders of the standard library, one or two, in the layout of pyenv, Debian or any other."""
    pure = Path(sysconfig.get_path("stdlib"))
    with_binaries = Path(sysconfig.get_path("platstdlib", vars={"platbase": sys.base_exec_prefix}))
    return list(dict.fromkeys(folder.resolve() for folder in (pure, with_binaries) if folder.is_dir()))


def copy_interpreter(root: Path) -> None:
    """Copy interpreter, standard library and shared libraries below ``root``, each to its path on this machine."""
    program = executable()
    _copy(program, _below(root, program))
    for folder in stdlib_folders():
        # Debian links a file into the library that not every machine has.
        shutil.copytree(
            folder, _below(root, folder), ignore=_LEFT_OUT, ignore_dangling_symlinks=True, dirs_exist_ok=True
        )
        compile_all(_below(root, folder), root)
    binaries = [program, *(b for f in stdlib_folders() for b in _below(root, f).rglob("*.so"))]
    _copy_libraries(binaries, root)


def requirements(pyproject: Path, extra: str) -> list[Distribution]:
    """Return the installed packages that ``runkeys[extra]`` needs according to pyproject.toml.

    :raises PackageNotFoundError: one of them is not installed here.
    """
    project = tomllib.loads(pyproject.read_text())["project"]
    todo = [
        Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"][extra])
    ]
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    while todo:
        wanted = todo.pop()
        if str(wanted) in seen or not _applies(wanted, ""):
            continue
        seen.add(str(wanted))
        if wanted.name == project["name"]:
            todo += [
                Requirement(text)
                for chosen in wanted.extras
                for text in project["optional-dependencies"][chosen]
            ]
            continue
        distribution = importlib.metadata.distribution(wanted.name)
        found[re.sub(r"[-_.]+", "-", distribution.name).lower()] = distribution
        requirements = [Requirement(text) for text in distribution.requires or ()]
        for need in requirements:
            if any(_applies(need, chosen) for chosen in ("", *wanted.extras)):
                need.marker = None
                todo.append(need)
    return [found[name] for name in sorted(found)]


def locked(lock: Path) -> list[Distribution]:
    """Return the installed packages that a lock file names for this Python.

    :raises LookupError: one of them is installed in another version.
    """
    found = []
    for line in re.findall(r"^[A-Za-z0-9][^\n]*", lock.read_text(), re.MULTILINE):
        wanted = Requirement(line.rstrip("\\ "))
        if not _applies(wanted, ""):
            continue
        distribution = importlib.metadata.distribution(wanted.name)
        if not wanted.specifier.contains(distribution.version, prereleases=True):
            raise LookupError(
                f"{lock.name} has {wanted.name}{wanted.specifier}, and {distribution.version} is installed"
            )
        found.append(distribution)
    return found


def copy_distributions(distributions: Iterable[Distribution], root: Path, folder: str) -> None:
    """Copy installed packages into a folder below ``root``, compiled, with the shared libraries that they load."""
    target = root / folder
    for distribution in distributions:
        for file in distribution.files or ():
            # Scripts are beside the packages' folder, and nothing in the image calls them.
            if ".." not in file.parts and "__pycache__" not in file.parts:
                _copy(Path(str(distribution.locate_file(file))), target / file)
    compile_all(target, root)
    _copy_libraries(target.rglob("*.so*"), root)


def compile_all(folder: Path, root: Path) -> None:
    """Compile the modules once here, since a read-only container would compile them at every start."""
    # Python uses them without a check: in an image neither sources nor times change.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    # The Kubernetes client is half of all modules, and an operator in a cluster never imports it.
    unused = re.compile(r"/site-packages/kubernetes/")
    compileall.compile_dir(
        str(folder), quiet=2, workers=0, rx=unused, stripdir=str(root), invalidation_mode=mode
    )


def output(*command: str | Path) -> str:
    """Run a program and return its output."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _copy_libraries(binaries: Iterable[Path], root: Path) -> None:
    names = sorted(str(path) for path in binaries if path.is_file())
    listing = subprocess.run(["ldd", *names], capture_output=True, text=True, check=False, timeout=120).stdout
    for found in re.findall(r"(?:=> |^\t)(/\S+) \(0x", listing, re.MULTILINE):
        library = Path(found)
        if not library.is_relative_to(root):
            _copy(library, _below(root, library))


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
