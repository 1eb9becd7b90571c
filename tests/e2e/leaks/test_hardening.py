"""What docs/hardening.md advises, with the very files that it names: afterwards only the node has values."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import pytest

from testing.cluster.node import NodeCluster
from testing.cluster.node_layout import NodeOptions
from testing.examples import EXAMPLES
from tests.e2e.conftest import OwnNode
from tests.e2e.leaks import entries, entries_leased, entries_sealed
from tests.e2e.leaks.allowed import ALLOWED, HARDENED_AWAY
from tests.e2e.leaks.load import ENTRIES
from tests.e2e.leaks.scan import check
from tests.e2e.leaks.world import world

pytestmark = pytest.mark.e2e
MODULES = (entries, entries_leased, entries_sealed)
HARDENING = EXAMPLES / "hardening"


def encryption(folder: Path) -> Path:
    """The example with a key, put in as its first lines say."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    written = folder / "encryption.yaml"
    written.write_text((HARDENING / "encryption.yaml").read_text().replace("YOUR-KEY", key))
    return written


def test_with_encryption_and_the_audit_policy_only_the_node_has_values(
    own_node: OwnNode, tmp_path: Path
) -> None:
    options = NodeOptions(
        audit=str(HARDENING / "audit-policy.yaml"),
        api_server=(f"--encryption-provider-config={encryption(tmp_path)}",),
    )
    base = [entry for entry in ENTRIES if entry.base]
    (tmp_path / "operators").mkdir()
    with world(own_node(options), tmp_path / "operators") as here:
        go_on = here.play(base)
        report = here.search([item for item in ALLOWED if item.place not in HARDENED_AWAY])
        print(report)
        encrypted = [text.partition(":")[2].partition(":")[0] for text in report.missing]
        assert encrypted == [" runkeys.dev", " secrets"], "what is encrypted cannot be found, the rest can"
        report.missing.clear()
        check(report)
        check_rights_are_on_record(here.node)
        go_on()


def check_rights_are_on_record(node: NodeCluster) -> None:
    """Whoever changes rights is on record with what they changed, and nobody is with a body of a Secret."""
    bodies = {event.resource for event in node.audit.events() if "requestObject" in event.raw}
    assert "roles" in bodies
    assert not bodies & {"secrets", "workflowruns", "secretbindings", "configmaps", "pods"}
    assert {"secrets", "workflowruns", "pods"} <= {
        event.resource for event in node.audit.events(verb="create")
    }
