"""The committed CustomResourceDefinitions are the models, and nothing in them repeats a value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from pydantic import Field

from runkeys.api import crd
from runkeys.api.common import ApiModel, CrdInfo, ObjectMeta, PrinterColumn

CHECKOUT = Path(__file__).resolve().parents[3]
FOLDERS = (CHECKOUT / "crds", CHECKOUT / "helm" / "runkeys" / "files" / "crds")


class WidgetSpec(ApiModel):
    """Wanted."""

    size: int = Field(default=1, description="How big.")


class Widget(ApiModel):
    """A thing."""

    CRD: ClassVar[CrdInfo] = CrdInfo(
        plural="widgets",
        singular="widget",
        short_names=("wd",),
        columns=(PrinterColumn("Size", ".spec.size", "integer", "How big", priority=1),),
        root_rules=(("size(self.metadata.name) < 9", "metadata.name may have 8 characters"),),
    )

    api_version: str = "runkeys.dev/v1alpha1"
    kind: str = "Widget"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: WidgetSpec = Field(description="What is wanted.")


def test_a_kind_becomes_a_definition_with_names_columns_and_root_rules() -> None:
    manifest = crd.manifest(Widget)
    version = manifest["spec"]["versions"][0]

    assert manifest["metadata"] == {"name": "widgets.runkeys.dev"}
    assert manifest["spec"]["names"] == {
        "kind": "Widget",
        "listKind": "WidgetList",
        "plural": "widgets",
        "singular": "widget",
        "shortNames": ["wd"],
        "categories": ["runkeys"],
    }
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"] == [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big", "priority": 1}
    ]
    assert version["schema"]["openAPIV3Schema"] == {
        "description": "A thing.",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "runkeys.dev/v1alpha1"},
            "kind": {"type": "string", "description": "Widget"},
            "metadata": {"type": "object"},
            "spec": {
                "description": "What is wanted.",
                "type": "object",
                "properties": {"size": {"description": "How big.", "type": "integer", "default": 1}},
            },
        },
        "required": ["spec"],
        "x-kubernetes-validations": [
            {
                "rule": "size(self.metadata.name) < 9",
                "message": "metadata.name may have 8 characters",
                "reason": "FieldValueForbidden",
            }
        ],
    }


def test_the_file_reads_back_as_the_manifest() -> None:
    assert yaml.safe_load(crd.render(Widget)) == crd.manifest(Widget)
    assert crd.render(Widget) == crd.render(Widget)


@pytest.mark.parametrize("folder", FOLDERS, ids=["crds", "helm/runkeys/files/crds"])
def test_committed_files_are_those_of_the_models(folder: Path) -> None:
    wanted = {crd.file_name(kind): crd.render(kind) for kind in crd.KINDS}
    found = {path.name: path.read_text() for path in folder.glob("*.yaml")}

    assert found == wanted, "the models have changed: run `make crds` and commit what it writes"


def test_main_writes_the_files_into_every_folder(tmp_path: Path) -> None:
    assert crd.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0

    names = {crd.file_name(kind) for kind in crd.KINDS}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    assert {path.name for path in (tmp_path / "b").iterdir()} == names


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_main_without_a_folder_says_how_it_is_called(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert crd.main(arguments) == 2
    assert "python -m runkeys.api.crd FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.__name__)
def test_nothing_in_a_kind_makes_the_api_server_repeat_a_refused_value(kind: type[crd.Kind]) -> None:
    for schema in _schemas(crd.manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]):
        assert not {"enum", "pattern"} & set(schema), schema
        for rule in schema.get("x-kubernetes-validations", []):
            assert rule["reason"] == "FieldValueForbidden", rule
            assert "messageExpression" not in rule, rule


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.__name__)
def test_a_definition_fits_the_annotation_that_kubectl_apply_writes(kind: type[crd.Kind]) -> None:
    assert len(crd.render(kind)) < 200_000, (
        "kubectl apply keeps a copy in an annotation of 262144 bytes at most"
    )


def _schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for inner in schema.get("properties", {}).values():
        yield from _schemas(inner)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from _schemas(schema[key])
