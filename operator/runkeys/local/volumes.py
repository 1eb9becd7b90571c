"""Folders and files of a pod in a local run, all made before the first of its processes starts.

So no process can put a link where a file with a value is going to be written.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runkeys.names import FOLDER_VARIABLES, RUNTIME
from runkeys.planning.kubelet import OURS
from runkeys.problems import Invalid

Json = Mapping[str, Any]

POOLS = "input"
"""The folder with data pools, the same in which a service that is tried out by hand finds them."""

_OUTPUT_KEPT = 4096
"""Bytes of the end of an output that the kubelet keeps."""

_METADATA = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]", re.DOTALL)


def field_of(path: str, metadata: Json) -> str | None:
    """The text of a fieldRef or of an item of a downwardAPI volume; None if it is not known here."""
    found = _METADATA.fullmatch(path)
    if found is not None:
        return str((metadata.get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        items = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(items.items()))
    value = metadata.get(path.removeprefix("metadata.")) if path.startswith("metadata.") else None
    return value if isinstance(value, str) else None


class Volumes:
    """The volumes of one pod, and where each of its containers finds them.

    :param folder: a new folder of this pod alone.
    :param pools: the folder with the data pools.
    :param values: by key in the attempt's Secret.
    """

    def __init__(
        self, folder: Path, template: Json, metadata: Json, pools: Path, values: Mapping[str, bytes]
    ) -> None:
        self._folder, self._metadata, self._values = folder, metadata, values
        spec = template["spec"]
        self._places: dict[str, Path] = {}
        for number, volume in enumerate(spec.get("volumes") or []):
            place = folder / "volumes" / str(number)
            self._places[volume["name"]] = place
            if "persistentVolumeClaim" in volume:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to((pools / _pool(spec, volume["name"])).resolve())
                continue
            place.mkdir(parents=True)
            for path, content in self._files(volume):
                _write(place, path, content)

    def of_container(self, number: int, container: Json) -> dict[str, Path]:
        """By path in the container where it is here."""
        runtime = self._folder / "containers" / str(number)
        runtime.mkdir(parents=True)
        places = {RUNTIME: runtime}
        for mount in container.get("volumeMounts") or []:
            place = self._places[mount["name"]]
            if mount.get("subPath"):
                place = place / _inside(str(mount["subPath"]))
                place.mkdir(parents=True, exist_ok=True)
            path = posixpath.normpath(str(mount["mountPath"]))
            if path.startswith(f"{RUNTIME}/"):
                link = runtime / _inside(path.removeprefix(f"{RUNTIME}/"))
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(place)
            else:
                places[path] = place
        for kind in FOLDER_VARIABLES:
            (runtime / kind).mkdir(exist_ok=True)
        return places

    def output(self) -> str:
        """The end of output.json, as the kubelet keeps it; empty if there is none."""
        place = self._places.get(f"{OURS}output")
        if place is None:
            return ""
        try:
            # No link, and nothing that would keep the reader waiting.
            file = os.open(place / "output.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return ""
        with os.fdopen(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                return ""
            opened.seek(max(0, status.st_size - _OUTPUT_KEPT))
            return opened.read(_OUTPUT_KEPT).decode(errors="replace")

    def _files(self, volume: Json) -> Iterator[tuple[str, bytes]]:
        for item in (volume.get("downwardAPI") or {}).get("items") or []:
            found = field_of(item["fieldRef"]["fieldPath"], self._metadata)
            yield item["path"], (found or "").encode(errors="surrogatepass")
        for item in (volume.get("secret") or {}).get("items") or []:
            yield item["path"], self._values[item["key"]]


def _pool(spec: Json, volume: str) -> str:
    """Name of the data pool of a volume: the last part of the path at which Runkeys mounts it."""
    mounts = (
        mount
        for field in ("initContainers", "containers")
        for container in spec.get(field) or []
        for mount in container.get("volumeMounts") or []
    )
    path = next(mount["mountPath"] for mount in mounts if mount["name"] == volume)
    return str(_inside(posixpath.basename(path)))


def _write(folder: Path, path: str, content: bytes) -> None:
    """Write a new file that only its user can read."""
    place = folder / _inside(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(place, flags, 0o400), "wb") as file:
        file.write(content)


def _inside(path: str) -> Path:
    """A path that stays below a folder. The kinds and the pod's own rules refuse others before."""
    found = Path(path)
    if not path or found.is_absolute() or ".." in found.parts or "\0" in path:
        raise Invalid(f"{path!r} would be a place outside of the run's folder; choose another name")
    return found
