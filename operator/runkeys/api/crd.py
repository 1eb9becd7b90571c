"""Writes the CustomResourceDefinitions: ``python -m runkeys.api.crd FOLDER...`` (``make crds``).

The models are the one source; the files are committed, and a test fails when they differ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar, Protocol

import yaml

from runkeys.api.binding import SecretBinding
from runkeys.api.common import GROUP, VERSION, CrdInfo, PrinterColumn
from runkeys.api.reveal import SecretReveal
from runkeys.api.run import WorkflowRun
from runkeys.api.store import SecretStore
from runkeys.api.structural import VALIDATIONS, Schema, SchemaError, structural_schema

HEADER = "# Generated from operator/runkeys/api by `make crds`. Do not edit.\n"

_API_VERSION = {"type": "string", "description": f"{GROUP}/{VERSION}"}
_METADATA = {"type": "object"}


class Kind(Protocol):
    """What a model must have to become a CustomResourceDefinition."""

    CRD: ClassVar[CrdInfo]

    @classmethod
    def model_json_schema(cls, by_alias: bool = True) -> dict[str, Any]:
        """Return the JSON schema, as pydantic's models do."""
        ...


KINDS: tuple[type[Kind], ...] = (WorkflowRun, SecretBinding, SecretReveal, SecretStore)


def manifest(kind: type[Kind]) -> Schema:
    """Return the CustomResourceDefinition of one kind: plain JSON types, new on every call.

    :raises SchemaError: the model says what a CRD cannot say; the message names the field.
    """
    info = kind.CRD
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": info.plural,
                "singular": info.singular,
                "shortNames": list(info.short_names),
                "categories": list(info.categories),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(column) for column in info.columns],
                    **_selectable(info),
                    "schema": {"openAPIV3Schema": _root_schema(kind)},
                }
            ],
        },
    }


def _selectable(info: CrdInfo) -> Schema:
    return {"selectableFields": [{"jsonPath": path} for path in info.selectable]} if info.selectable else {}


def render(kind: type[Kind]) -> str:
    """Return the file of one kind: YAML with a header, the same bytes every time."""
    text: str = yaml.dump(
        manifest(kind),
        Dumper=_Dumper,
        sort_keys=False,
        width=100,
        allow_unicode=True,
        default_flow_style=False,
    )
    return HEADER + text


def file_name(kind: type[Kind]) -> str:
    """Name of the file of one kind, such as ``runkeys.dev_workflowruns.yaml``."""
    return f"{GROUP}_{kind.CRD.plural}.yaml"


def main(arguments: list[str]) -> int:
    """Write every kind into every folder named; return the exit status."""
    if not arguments or any(argument.startswith("-") for argument in arguments):
        sys.stderr.write("usage: python -m runkeys.api.crd FOLDER...\n")
        return 2
    try:
        files = {file_name(kind): render(kind) for kind in KINDS}
    except SchemaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    for folder in map(Path, arguments):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    return 0


def _root_schema(kind: type[Kind]) -> Schema:
    """Schema of the whole object. What the API server itself looks after is replaced by what it wants to see."""
    raw = kind.model_json_schema(by_alias=True)
    own = {name: value for name, value in raw["properties"].items() if name in {"spec", "status"}}
    trimmed = {**raw, "properties": own, "required": ["spec"]}
    rules = [{"rule": rule, "message": message} for rule, message in kind.CRD.root_rules]
    if rules:
        trimmed[VALIDATIONS] = [*raw.get(VALIDATIONS, ()), *rules]
    schema = structural_schema(trimmed)
    schema["properties"] = {
        "apiVersion": dict(_API_VERSION),
        "kind": {"type": "string", "description": kind.__name__},
        "metadata": dict(_METADATA),
        **schema["properties"],
    }
    return schema


def _column(column: PrinterColumn) -> Schema:
    out: Schema = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.description:
        out["description"] = column.description
    if column.priority:
        out["priority"] = column.priority
    return out


class _Dumper(yaml.SafeDumper):
    """YAML without anchors and with the items of lists indented, as people write it."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
