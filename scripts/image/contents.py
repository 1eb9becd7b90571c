"""What is in an image: Debian's packages, Python, and the packages of Python."""

from __future__ import annotations

import re
from datetime import datetime

from scripts import sbom
from scripts.image.archive import ImageArchive
from scripts.sbom import Json

_RELEASE, _STATUS = "etc/os-release", "var/lib/dpkg/status"
_METADATA = re.compile(r".*/[^/]+\.dist-info/METADATA")
_VERSION = "app/runkeys/_version.py"


def listed(image: ImageArchive, name: str, lock: str, made: datetime) -> Json:
    """Return the list of contents (CycloneDX) of an image of the operator.

    :param lock: text of the lock file that the image was built from.
    :raises ValueError: the image has no known Python or no operator in it.
    """
    system = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', image.read(_RELEASE).decode(), re.MULTILINE))
    distributions = [
        sbom.python_metadata(image.read(path).decode())
        for path in sorted(image.files)
        if _METADATA.fullmatch(path)
    ]
    hashes = sbom.locked_hashes(lock)
    packages = sbom.debian_components(image.read(_STATUS).decode(), system["ID"])
    version = _own_version(image)
    components = [
        _system(system),
        *_interpreter(image, packages),
        *packages,
        *_each_once([sbom.python_component(item, hashes) for item in distributions]),
        {
            "type": "application",
            "bom-ref": f"pkg:pypi/runkeys@{version}",
            "name": "runkeys",
            "version": version,
            "purl": f"pkg:pypi/runkeys@{version}",
        },
    ]
    main: Json = {"type": "container", "bom-ref": f"{name}@{version}", "name": name, "version": version}
    main["properties"] = [{"name": "runkeys:platform", "value": f"linux/{image.architecture}"}]
    depends: dict[str, set[str]] = dict(sbom.python_dependencies(distributions))
    depends[main["bom-ref"]] = {item["bom-ref"] for item in components}
    return sbom.document(main, components, depends, made)


def _own_version(image: ImageArchive) -> str:
    found = re.search(r'__version__ = "([^"]+)"', image.read(_VERSION).decode())
    if found is None:
        raise ValueError(f"/{_VERSION} names no version")
    return found[1]


def _system(release: dict[str, str]) -> Json:
    version = release.get("VERSION_ID", "")
    return {
        "type": "operating-system",
        "bom-ref": f"{release['ID']}@{version}",
        "name": release["ID"],
        "version": version,
    }


def _interpreter(image: ImageArchive, packages: list[Json]) -> list[Json]:
    """Return Python itself, if it is not one of Debian's packages: the images of Docker Hub say its version."""
    if any(re.fullmatch(r"python3\.\d+-minimal", item["name"]) for item in packages):
        return []
    version = image.environment.get("PYTHON_VERSION")
    if not version:
        raise ValueError("the image has a Python whose version nothing says")
    ref = f"pkg:generic/python@{version}"
    return [{"type": "application", "bom-ref": ref, "name": "python", "version": version, "purl": ref}]


def _each_once(components: list[Json]) -> list[Json]:
    return list({item["bom-ref"]: item for item in components}.values())
