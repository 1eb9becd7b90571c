"""What users read when they are refused, kept as files that people review."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from testing.namespace import Team
from testing.operators import requester_of

_FOLDER = Path(__file__).parent / "golden"
_PREFIX = re.compile(r".*?ValidatingAdmissionPolicy '(\S+)' with binding '\S+' denied request: ", re.DOTALL)


def told(message: str, team: Team) -> str:
    """What the API server says, without what differs from run to run; the policy's name comes first."""
    return plain(_PREFIX.sub(lambda found: f"[{found[1].partition('.')[0]}] ", message), team)


def plain(text: str, team: Team) -> str:
    """``text`` with NAMESPACE for the team's, one name for the cluster's administrator, and no uids and hashes."""
    administrator = requester_of(team.client)["username"]
    text = text.replace(team.namespace, "NAMESPACE").replace(administrator, "runkeys-admin")
    return re.sub(r"\b(rk-[-a-z0-9]+?)-[0-9a-f]{10}(-[a-z0-9]{5})?\b", r"\1-HASH", text)


def check_golden(name: str, rows: Mapping[str, str], scratch: Path) -> None:
    """Compare with the file of that name; what was found is written to ``scratch`` to be looked at."""
    found = "\n".join(f"{row}\n{_filled(text)}\n" for row, text in rows.items())
    written = scratch / name
    written.write_text(found)
    path = _FOLDER / name
    wanted = path.read_text() if path.exists() else ""
    assert found == wanted, f"{path} is another than what was told, which is in {written}:\n{found}"


def _filled(text: str) -> str:
    lines = textwrap.wrap(text, 116, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent("\n".join(lines), "    ")
