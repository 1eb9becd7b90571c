"""Reads the archive of an image, as `docker save` and testing/cluster/images.py write it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

_GONE, _ALL_GONE = ".wh.", ".wh..wh..opq"
_MOST_LINKS = 20


@dataclass(frozen=True)
class Layer:
    """What one layer adds.

    :ivar size: bytes of its tar.
    :ivar files: what is in it, by path without a leading slash.
    """

    size: int
    files: dict[str, tarfile.TarInfo]


class ImageArchive:
    """An image: its configuration, its layers, and the files that a container sees."""

    def __init__(self, path: Path) -> None:
        self._outer = tarfile.open(path)  # noqa: SIM115  close() closes it
        [manifest] = json.loads(self._member("manifest.json"))
        self.tags: list[str] = manifest.get("RepoTags") or []
        described: dict[str, Any] = json.loads(self._member(manifest["Config"]))
        self.architecture: str = described["architecture"]
        self.config: dict[str, Any] = described["config"]
        self._tars = [self._layer(name) for name in manifest["Layers"]]
        self.layers = [
            Layer(self._outer.getmember(name).size, {_plain(entry.name): entry for entry in tar})
            for name, tar in zip(manifest["Layers"], self._tars, strict=True)
        ]
        self._place: dict[str, int] = {}
        for number, layer in enumerate(self.layers):
            self._apply(number, layer)

    def _apply(self, number: int, layer: Layer) -> None:
        for name in layer.files:
            folder, _, last = name.rpartition("/")
            if last == _ALL_GONE:
                self._forget(folder, itself=False)
            elif last.startswith(_GONE):
                self._forget(f"{folder}/{last.removeprefix(_GONE)}".lstrip("/"), itself=True)
        for name in layer.files:
            if not name.rpartition("/")[2].startswith(_GONE):
                self._place[name] = number

    def _forget(self, name: str, *, itself: bool) -> None:
        for found in [n for n in self._place if n.startswith(f"{name}/") or (itself and n == name)]:
            del self._place[found]

    @property
    def size(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def environment(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.config.get("Env") or [])

    @property
    def files(self) -> dict[str, tarfile.TarInfo]:
        """What a container sees, by path without a leading slash."""
        return {name: self.layers[number].files[name] for name, number in self._place.items()}

    def read(self, name: str) -> bytes:
        """Return a file's content; links are followed.

        :raises KeyError: there is no such file.
        """
        for _ in range(_MOST_LINKS):
            name = self._through_folders(name)
            number = self._place[name]
            entry = self.layers[number].files[name]
            if entry.issym():
                name = _joined(name, entry.linkname)
            elif entry.islnk():
                name = _plain(entry.linkname)
            else:
                content = self._tars[number].extractfile(entry)
                if content is None:
                    raise KeyError(name)
                return content.read()
        raise KeyError(name)

    def _through_folders(self, name: str) -> str:
        """Return the path with links among its folders followed, such as /lib to /usr/lib."""
        for _ in range(_MOST_LINKS):
            for folder in reversed(PurePosixPath(name).parents):
                entry = self.files_of(str(folder))
                if entry is not None and entry.issym():
                    name = f"{_joined(str(folder), entry.linkname)}/{PurePosixPath(name).relative_to(folder)}"
                    break
            else:
                return name
        raise KeyError(name)

    def files_of(self, name: str) -> tarfile.TarInfo | None:
        """Return the entry of a path; None if there is none."""
        number = self._place.get(name)
        return None if number is None else self.layers[number].files[name]

    def close(self) -> None:
        for tar in (*self._tars, self._outer):
            tar.close()

    def _layer(self, name: str) -> tarfile.TarFile:
        return tarfile.open(fileobj=self._outer.extractfile(name))

    def _member(self, name: str) -> bytes:
        content = self._outer.extractfile(name)
        assert content is not None, name
        return content.read()


@contextmanager
def opened(path: Path) -> Iterator[ImageArchive]:
    """Open an archive, and close it at the end."""
    archive = ImageArchive(path)
    try:
        yield archive
    finally:
        archive.close()


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/")


def _joined(name: str, target: str) -> str:
    """Return where a symbolic link leads."""
    parts: list[str] = []
    for part in (PurePosixPath(name).parent / target).parts:
        if part == "..":
            parts = parts[:-1]
        elif part != "/":
            parts.append(part)
    return "/".join(parts)
