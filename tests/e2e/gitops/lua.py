"""Argo CD's health checks, run by a Lua 5.1, which is the one that Argo CD speaks."""

from __future__ import annotations

from dataclasses import dataclass

from lupa.lua51 import LuaRuntime

from testing.cluster.client import Object
from testing.examples import EXAMPLES

FOLDER = EXAMPLES / "gitops" / "health"


@dataclass(frozen=True)
class Health:
    """What a check says."""

    status: str
    message: str


def health(item: Object) -> Health:
    """Run the check of an object's kind on it."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    text = (FOLDER / f"{item['kind']}.lua").read_text()
    check = lua.eval(f"function(obj)\n{text}\nend")
    found = check(lua.table_from(item, recursive=True))
    return Health(str(found["status"]), str(found["message"]))
