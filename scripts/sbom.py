"""Lists of contents (SBOM) in the form of CycloneDX 1.6: of the wheel with its dependencies, and of the image."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.parser import Parser
from typing import Any
from urllib.parse import quote

Json = dict[str, Any]

_EXTRA = re.compile(r"\bextra\s*==")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_LICENCE = 100  # some packages have the whole text in that field


def document(
    main: Json, components: Iterable[Json], depends: Mapping[str, Iterable[str]], made: datetime
) -> Json:
    """Return the whole document. The same contents give the same serial number.

    :param depends: what needs what, by ``bom-ref``.
    """
    listed = sorted(components, key=lambda item: str(item["bom-ref"]))
    text = json.dumps([main["bom-ref"], *(item["bom-ref"] for item in listed)])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {"timestamp": made.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": main},
        "components": listed,
        "dependencies": [
            {"ref": item["bom-ref"], "dependsOn": sorted(depends.get(item["bom-ref"], ()))}
            for item in (main, *listed)
        ],
    }


def python_component(metadata: Json, hashes: Mapping[str, list[str]]) -> Json:
    """Return a Python distribution as a component, with the hashes that the lock file allows.

    :param metadata: as ``pip inspect`` prints it.
    """
    ref = python_ref(metadata)
    component: Json = {
        "type": "library",
        "bom-ref": ref,
        "name": metadata["name"],
        "version": metadata["version"],
        "purl": ref,
    }
    licence = metadata.get("license_expression") or metadata.get("license") or ""
    if licence and len(licence) < _LONGEST_LICENCE:
        component["licenses"] = [{"license": {"name": licence}}]
    if digests := hashes.get(canonical(metadata["name"])):
        # For each Python and platform another wheel.
        component["properties"] = [{"name": "runkeys:locked-sha256", "value": digest} for digest in digests]
    return component


def python_ref(metadata: Json) -> str:
    return f"pkg:pypi/{canonical(metadata['name'])}@{metadata['version']}"


def python_dependencies(distributions: list[Json]) -> dict[str, set[str]]:
    """Return what each distribution needs of the others, by ``bom-ref``."""
    refs = {canonical(item["name"]): python_ref(item) for item in distributions}
    return {python_ref(item): _needed(item, refs) for item in distributions}


def _needed(item: Json, refs: Mapping[str, str]) -> set[str]:
    names = {
        canonical(found[0])
        for text in item.get("requires_dist", [])
        if not (_EXTRA.search(text) and item["name"] != "runkeys") and (found := _NAME.match(text))
    }
    return {refs[name] for name in names & refs.keys()}


def python_metadata(text: str) -> Json:
    """Return the fields of a METADATA file that this module reads, named as ``pip inspect`` names them."""
    fields = Parser().parsestr(text, headersonly=True)
    found: Json = {"name": fields["Name"], "version": fields["Version"]}
    for field, key in (("License-Expression", "license_expression"), ("License", "license")):
        if fields[field]:
            found[key] = str(fields[field])
    found["requires_dist"] = [str(item) for item in fields.get_all("Requires-Dist", [])]
    return found


def debian_components(status: str, distribution: str) -> list[Json]:
    """Return the installed packages of a dpkg status file as components."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.MULTILINE))
        if not fields.get("Status", "install ok installed").endswith(" installed") or "Package" not in fields:
            continue
        name, version = (quote(fields[key], safe="") for key in ("Package", "Version"))
        ref = f"pkg:deb/{distribution}/{name}@{version}?arch={fields['Architecture']}"
        found.append(
            {
                "type": "library",
                "bom-ref": ref,
                "name": fields["Package"],
                "version": fields["Version"],
                "purl": ref,
            }
        )
    return found


def locked_hashes(lock: str) -> dict[str, list[str]]:
    """SHA-256 digests of a lock file, by canonical name of the package."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.splitlines():
        if pinned := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = canonical(pinned[1])
        elif digest := re.search(r"--hash=sha256:([0-9a-f]{64})", line):
            found.setdefault(name, []).append(digest[1])
    return found


def canonical(name: str) -> str:
    """Return a distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
