"""Manifests in the documentation: an API server takes them, and templates in them can be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.api import SecretBinding, WorkflowRun, offline
from runkeys.api.crd import Kind
from runkeys.planning.refusal import Refusal
from runkeys.planning.requirements import reference_to

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("templates.md", "coming-from/external-secrets.md", "coming-from/vault-injector.md")
KINDS: dict[str, type[Kind]] = {"SecretBinding": SecretBinding, "WorkflowRun": WorkflowRun}
FOUND = [
    pytest.param(document, id=f"{page}: {document['kind']} {document['metadata']['name']}")
    for page in PAGES
    for block in re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    for document in yaml.safe_load_all(block)
    if document["kind"] in KINDS
]


@pytest.mark.parametrize("document", FOUND)
def test_the_api_server_takes_it(document: dict[str, Any]) -> None:
    assert offline.refusals(KINDS[document["kind"]], document) == []
    if document["kind"] == "SecretBinding":
        binding = SecretBinding.parse(document)
        refused = [reference_to("team-a", binding, entry, "here") for entry in binding.spec.secrets]
        assert [str(item) for item in refused if isinstance(item, Refusal)] == []


def test_there_are_some() -> None:
    assert len(FOUND) >= 4
