"""The leak scan fails when a place is empty, when it cannot see, and when a value is where another one may be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.leaks.allowed import ALLOWED
from tests.e2e.leaks.canaries import Canary, Mint, forms
from tests.e2e.leaks.places import Audit, Files, Log, Piece, part_of
from tests.e2e.leaks.scan import Report, check, scan


@dataclass(frozen=True)
class Given:
    """A source with one piece."""

    piece: Piece

    @property
    def places(self) -> tuple[str, ...]:
        return (self.piece.place,)

    def pieces(self) -> Iterator[Piece]:
        yield self.piece


MINT = Mint()
PLANTED = (MINT.plain("planted"), MINT.awkward("planted, awkward"))
HANDED = MINT.plain("handed", handed=True)
SOURCE = MINT.plain("source", source=True)
SENT = MINT.plain("sent", sent=True)
LIVE = MINT.plain("live", handed=True, live=True)
ALL = (HANDED, SOURCE, SENT, LIVE)
ALL_FORMS = b" ".join(text for canary in PLANTED for text in forms(canary.text.encode()).values())


def searched(place: str, where: str, *canaries: Canary, planted: bytes = ALL_FORMS) -> Report:
    data = planted + b" ".join(canary.text.encode() for canary in canaries)
    return scan([Given(Piece(place, where, data))], MINT, PLANTED)


@pytest.mark.parametrize(
    ("place", "where", "kind"),
    [
        ("etcd: secrets", "/registry/secrets/a/rk-job@12", "handed"),
        ("etcd: secrets", "/registry/secrets/a/source@12", "source"),
        ("etcd's log on disk", "0-0.wal: /registry/secrets/a/rk-job", "handed"),
        ("etcd's database on disk", "db: /registry/secrets/a/source", "source"),
        ("audit log", "system:serviceaccount:a:runkeys create a/secrets/rk-job 201: requestObject", "handed"),
        ("audit log", "system:serviceaccount:a:runkeys get a/secrets/source 200: responseObject", "source"),
        ("audit log", "runkeys-admin create a/workflowruns/ 422: requestObject", "sent"),
        ("kubelet's files", "kubelet's files: kubelet/pods/1/volumes/kubernetes.io~projected/f/x", "live"),
    ],
)
def test_what_is_allowed_is_so_for_one_kind_only(place: str, where: str, kind: str) -> None:
    report = searched(place, where, *ALL)
    leaked = {leak.name for leak in report.leaks}
    assert leaked == {canary.name for canary in ALL if not getattr(canary, kind)}


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("etcd: runkeys.dev", "/registry/runkeys.dev/workflowruns/a/job@12"),
        ("etcd: secrets", "/registry/configmaps/a/rk-job@12"),
        ("etcd's database on disk", "db: page 12"),
        ("etcd's database on disk", "db: /registry/events/a/rk-job"),
        ("audit log", "system:serviceaccount:a:runkeys create a/events/rk-job 201: requestObject"),
        ("audit log", "system:serviceaccount:a:runkeys create a/secrets/other 201: requestObject"),
        ("audit log", "system:serviceaccount:a:runkeys get a/secrets/rk-job 200: responseObject"),
        ("audit log", "alice get a/secrets/source 200: responseObject"),
        ("audit log", "alice create a/workflowruns/ 422: responseObject"),
        ("audit log", "alice create a/workflowruns/ 201: requestObject"),
        ("log of the operator", "log of the operator: a.log"),
        ("log of kube-apiserver", "E1 something else"),
        ("logs of containers", "logs of containers: pod-logs/0.log"),
        ("endpoints", "operator /metrics"),
        (
            "containerd's files",
            "containerd's files: containerd/io.containerd.snapshotter.v1.overlayfs/1/fs/a",
        ),
        ("kubelet's files", "kubelet's files: kubelet/pods/1/etc-hosts"),
    ],
)
def test_nothing_is_allowed_elsewhere(place: str, where: str) -> None:
    report = searched(place, where, *ALL)
    assert {leak.name for leak in report.leaks} == {canary.name for canary in ALL}
    with pytest.raises(AssertionError, match="handed"):
        check(report)


def test_a_search_that_finds_what_was_planted_and_nothing_else_passes() -> None:
    check(searched("a place", "here"))


def test_an_empty_place_fails(tmp_path: Path) -> None:
    (tmp_path / "empty.log").touch()
    report = scan([Log("x", tmp_path / "empty.log"), Files("f", (tmp_path / "absent",))], MINT, PLANTED)
    assert report.missing == ["log of x is empty", "f is empty"]
    with pytest.raises(AssertionError, match="log of x is empty"):
        check(report)


@pytest.mark.parametrize("form", ["raw", "hex", "base64+1", "base64+2"])
def test_a_search_that_is_blind_to_a_form_fails(form: str) -> None:
    plain, awkward = (forms(canary.text.encode()) for canary in PLANTED)
    seen = b" ".join([awkward["url"], *(text for name, text in plain.items() if name != form)])
    with pytest.raises(AssertionError, match=rf"were not found as \['{form.replace('+', '[+]')}'"):
        check(searched("a place", "here", planted=seen))


def test_a_report_never_shows_a_value() -> None:
    report = searched("a place", "here", *ALL)
    shown = f"{report} {sorted(map(str, report.leaks))} {report!r}"
    assert "handed" in shown
    assert [canary.name for canary in ALL for half in canary.halves() if half.decode() in shown] == []


def test_the_part_of_an_audit_entry_is_told() -> None:
    line = json.dumps(
        {"a": "é", "requestObject": {"x": ["1", "here"]}, "z": "there"}, separators=(",", ":")
    ).encode()
    assert part_of(line, line.index(b"here")) == "requestObject"
    assert part_of(line, line.index(b"there")) == "z"


def test_an_audit_entry_is_told_by_who_did_what(tmp_path: Path) -> None:
    entry = {
        "level": "RequestResponse",
        "verb": "create",
        "user": {"username": "alice"},
        "objectRef": {"resource": "secrets", "namespace": "a"},
        "responseStatus": {"code": 201},
        "requestObject": {"data": "x"},
        "responseObject": {"metadata": {"name": "rk-1"}, "data": LIVE.text},
    }
    (tmp_path / "log").write_text(f"{json.dumps({'user': {}})}\n{json.dumps(entry, separators=(',', ':'))}\n")
    [piece] = Audit(tmp_path / "log").pieces()
    assert piece.at(piece.data.index(LIVE.text.encode())) == "alice create a/secrets/rk-1 201: responseObject"


def test_each_allowance_says_why() -> None:
    assert all(len(item.reason) > 20 for item in ALLOWED)
