"""Folders with data that a task is given: models, data sets."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any


class DataPool:
    """A folder that was mounted for a task; in a local run a folder of the project.

    :ivar name: of the parameter that it is for.
    :ivar path: where it is.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises FileNotFoundError or NotADirectoryError if there is no such folder."""
        place = Path(path)
        if not place.exists():
            raise FileNotFoundError(f"data pool {place.name}: there is no folder {place}")
        if not place.is_dir():
            raise NotADirectoryError(f"data pool {place.name}: {place} is no folder")
        self.name = place.name
        self.path = str(place)

    def list_files(self) -> dict[str, str]:
        """By name the path of each file in it, folders left out."""
        return {item.name: str(item) for item in sorted(Path(self.path).iterdir()) if item.is_file()}

    def open(self, name: str, mode: str = "r") -> IO[Any]:
        """Open a file of it, as the built-in `open` does. Raises FileNotFoundError, also for a name outside of it."""
        base = Path(self.path).resolve()
        place = (base / name).resolve()
        # A volume's files are links into hidden folders of the volume itself.
        if not place.is_file() or not place.is_relative_to(base):
            raise FileNotFoundError(f"there is no file {name!r} in data pool {self.name}")
        return place.open(mode)

    def __repr__(self) -> str:
        return f"DataPool({self.path!r})"
