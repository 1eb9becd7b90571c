"""No value is anywhere but where it has to be, whatever went wrong on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.cluster.build import program
from tests.conftest import FULL
from tests.e2e.conftest import OwnNode
from tests.e2e.leaks import entries, entries_asked, entries_delivered, entries_leased, entries_sealed
from tests.e2e.leaks.allowed import ALLOWED, DB, HARDENED_AWAY, TOKENS, WAL
from tests.e2e.leaks.canaries import Search
from tests.e2e.leaks.entries_leaking import LEAKING
from tests.e2e.leaks.load import ENTRIES, Entry
from tests.e2e.leaks.places import EtcdFiles
from tests.e2e.leaks.scan import check
from tests.e2e.leaks.world import EVERYTHING, World, world
from tests.sampling import sample

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.proof,
    pytest.mark.timeout(1800 if FULL else 900),
]
MODULES = (entries, entries_asked, entries_delivered, entries_leased, entries_sealed)
"""Entries add themselves when these are imported."""
SAMPLED = 6


def chosen() -> list[Entry]:
    base = [entry for entry in ENTRIES if entry.base]
    return base + sample([entry for entry in ENTRIES if not entry.base], SAMPLED, name="leaks")


def test_no_value_is_where_it_must_not_be(own_node: OwnNode, tmp_path: Path) -> None:
    with world(own_node(EVERYTHING), tmp_path) as here:
        played = chosen()
        print("played:", ", ".join(entry.name for entry in played))
        go_on = here.play(played)
        left = [key for key in here.node.etcd.keys("/registry/secrets/") if "/rk-" in key]
        assert ["/rk-live-" in key for key in left] == [True], left
        report = here.search()
        print(report)
        check(report)
        assert {item.place for item in report.allowed} >= HARDENED_AWAY, (
            "where hardening would show nothing new"
        )
        assert TOKENS in {item.reason for item in report.allowed}, "tokens are searched for"
        go_on()
        check_compaction_forgets(here)
        if FULL:
            unused = [item.reason for item in ALLOWED if item not in report.allowed]
            assert not unused, f"nothing is at these places: do not allow them: {unused}"


def check_compaction_forgets(here: World) -> None:
    """What was deleted leaves etcd's database when that is compacted and defragmented; the log of changes later."""
    search = Search(here.mint)
    [canary] = [item for item in here.mint.made if item.name == "sealed-in-a-binding"]

    def where() -> set[str]:
        pieces = EtcdFiles(here.node).pieces()
        return {piece.place for piece in pieces if canary in {hit.canary for hit in search.hits(piece.data)}}

    assert where() == {DB, WAL}
    etcdctl = (str(program("etcdctl")), "--endpoints=http://127.0.0.1:2379")
    here.node.enter(*etcdctl, "compaction", "--physical", str(here.node.etcd.revision()))
    here.node.enter(*etcdctl, "defrag")
    assert where() == {WAL}


def test_control_what_people_and_programs_give_away_is_found(own_node: OwnNode, tmp_path: Path) -> None:
    base = [entry for entry in ENTRIES if entry.base]
    with world(own_node(EVERYTHING), tmp_path) as here:
        go_on = here.play([*base, *LEAKING])
        report = here.search()
        go_on()
    with pytest.raises(AssertionError):
        check(report)
    assert report.missing == []
    found = {
        entry.name: {leak.place for leak in report.leaks if leak.name == entry.name} for entry in LEAKING
    }
    not_found = {entry.name: places - found[entry.name] for entry, places in LEAKING.items()}
    assert not any(not_found.values()), f"{not_found}\n{report}"
    leaking = {entry.name for entry in LEAKING}
    assert [str(leak) for leak in report.leaks if leak.name not in leaking] == []
