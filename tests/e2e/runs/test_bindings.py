"""A binding's author sees in its status whether its values can be read."""

from __future__ import annotations

from typing import Any

import pytest

from testing.cluster.client import Object
from testing.namespace import Team

pytestmark = pytest.mark.e2e


def wait_ready(team: Team, name: str, status: str, reason: str) -> Object:
    """Wait until the binding's condition Ready says so."""

    def holds(found: Object) -> bool:
        conditions: list[dict[str, Any]] = found.get("status", {}).get("conditions", [])
        return any(
            (item["type"], item["status"], item["reason"]) == ("Ready", status, reason) for item in conditions
        )

    return team.client.wait_for(
        "secretbindings", name, team.namespace, holds, what=f"Ready={status} {reason}"
    )


def test_a_binding_whose_values_can_be_read_is_ready(team: Team) -> None:
    found = wait_ready(team, "keys", "True", "Readable")
    assert found["status"]["secrets"] == "1/1"
    assert team.value not in str(found)


def test_a_missing_key_is_named_entry_by_entry(team: Team) -> None:
    entries = [
        {"name": "token", "secretKeyRef": {"name": "source", "key": "token"}},
        {"name": "other", "secretKeyRef": {"name": "source", "key": "absent"}},
    ]
    team.make_binding("partly", secrets=entries)
    found = wait_ready(team, "partly", "False", "SourceKeyMissing")
    assert found["status"]["secrets"] == "1/2"
    by_name = {entry["name"]: entry for entry in found["status"]["entries"]}
    assert by_name["token"]["ready"]
    assert "absent" in by_name["other"]["message"]


def test_a_source_that_may_not_be_read_says_which_role_is_needed(team: Team) -> None:
    team.make_binding("closed", secrets=[{"name": "t", "secretKeyRef": {"name": "elsewhere", "key": "k"}}])
    found = wait_ready(team, "closed", "False", "SourceForbidden")
    message = found["status"]["entries"][0]["message"]
    assert "create role" in message
    assert "--resource-name=elsewhere" in message


def test_a_binding_that_admits_nobody_is_not_ready(team: Team) -> None:
    team.make_binding("nobody", access=[])
    wait_ready(team, "nobody", "False", "AccessDenied")


def test_a_binding_that_is_mended_becomes_ready(team: Team) -> None:
    team.make_binding("mended", access=[])
    wait_ready(team, "mended", "False", "AccessDenied")
    team.client.patch(
        "secretbindings",
        "mended",
        team.namespace,
        {"spec": {"access": [{"serviceAccountNames": ["default"]}]}},
    )
    wait_ready(team, "mended", "True", "Readable")
