"""Where a release's image and chart are, and the image that its chart names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

IMAGE_NAME = "runkeys-operator"
_PINNED = re.compile(r"(?P<repository>[a-z0-9][a-z0-9._:/-]*[a-z0-9])@(?P<digest>sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Registry:
    """A place in a container registry for everything of this repository.

    :ivar root: such as ``registry.example/owner/name``. Registries take lower case only.
    """

    root: str

    @classmethod
    def of(cls, root: str) -> Registry:
        return cls(root.lower().rstrip("/"))

    @property
    def host(self) -> str:
        return self.root.partition("/")[0]

    @property
    def image(self) -> str:
        """The operator's image, without a tag."""
        return f"{self.root}/{IMAGE_NAME}"

    @property
    def charts(self) -> str:
        """The folder of charts, as ``helm push`` takes it. helm adds the chart's name."""
        return f"oci://{self.root}/charts"

    @property
    def chart(self) -> str:
        """The chart, as ``helm install`` takes it."""
        return f"{self.charts}/runkeys"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where registries speak plain HTTP."""
        return self.host.partition(":")[0] in ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Image:
    """An image that has been pushed. With the digest it is exactly this one, whatever a tag points to."""

    repository: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Image:
        """Return the image that ``REPOSITORY@sha256:…`` names.

        :raises SystemExit: the text has another form.
        """
        found = _PINNED.fullmatch(text)
        if found is None:
            raise SystemExit(f"{text!r} is no image with a digest: REPOSITORY@sha256:…")
        return cls(found["repository"], found["digest"])

    @classmethod
    def read(cls, path: Path) -> Image:
        """Return the image that ``write`` wrote down."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"repository": self.repository, "digest": self.digest}) + "\n")

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"
