"""Folders with data for a task, such as models and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any


class DataPool:
    """A folder that is mounted for a task. In a local run, a folder of the project.

    :ivar name: name of the folder, which is the parameter's name.
    :ivar path: path of the folder.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises FileNotFoundError or NotADirectoryError if there is no such folder."""
        place = Path(path)
        if not place.exists():
            raise FileNotFoundError(f"data pool {place.name}: there is no folder {place}")
        if not place.is_dir():
            raise NotADirectoryError(f"data pool {place.name}: {place} is not a folder")
        self.name = place.name
        self.path = str(place)

    def list_files(self) -> dict[str, str]:
        """Return the path of each file in the folder, by file name. Subfolders are left out."""
        return {item.name: str(item) for item in sorted(Path(self.path).iterdir()) if item.is_file()}

    def open(self, name: str, mode: str = "r") -> IO[Any]:
        """Open a file in the folder, like the built-in `open`.

        :raises FileNotFoundError: there is no such file, or its path is outside of the folder.
        """
        base = Path(self.path).resolve()
        place = (base / name).resolve()
        # A volume's files are links into hidden folders of the volume itself.
        if not place.is_file() or not place.is_relative_to(base):
            raise FileNotFoundError(f"there is no file {name!r} in data pool {self.name}")
        return place.open(mode)

    def __repr__(self) -> str:
        return f"DataPool({self.path!r})"
