"""The search itself: every piece of every place for every canary, and what came of it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .allowed import ALLOWED, Allowance
from .canaries import Canary, Mint, Search
from .places import Source

FORMS = frozenset(("raw", "base64+0", "base64+1", "base64+2", "hex", "url"))
"""In which the planted canaries have to be found everywhere; those of JSON depend on who wrote it."""


@dataclass(frozen=True, order=True)
class Leak:
    """A value where none may be; says where, and never the value."""

    place: str
    where: str
    name: str
    form: str
    before: str = field(compare=False)
    """The text before it, for whoever looks for the cause."""

    def __str__(self) -> str:
        return f"{self.place}: {self.where}: {self.name} ({self.form}), after: {self.before}"


@dataclass
class Report:
    """What was searched and found."""

    pieces: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    planted: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The forms in which the planted canaries were found, by place."""
    allowed: Counter[Allowance] = field(default_factory=Counter)
    leaks: set[Leak] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    seconds: float = 0

    def __str__(self) -> str:
        lines = [f"{'place':28} {'pieces':>7} {'bytes':>13} {'hits':>6}  forms of the planted"]
        for place in sorted(self.pieces):
            counts = f"{self.pieces[place]:7} {self.bytes[place]:13,} {self.hits[place]:6}"
            lines.append(f"{place:28} {counts}  {len(self.planted[place]) or ''}".rstrip())
        total = f"{sum(self.pieces.values()):7} {sum(self.bytes.values()):13,} {sum(self.hits.values()):6}"
        lines.append(f"{'all, in ' + format(self.seconds, '.1f') + ' s':28} {total}")
        lines.append("allowed:")
        lines += [f"{count:6}  {item.place}: {item.reason}" for item, count in self.allowed.items()]
        return "\n".join(lines)


def scan(
    sources: Iterable[Source],
    mint: Mint,
    planted: Sequence[Canary],
    allowed: Sequence[Allowance] = ALLOWED,
) -> Report:
    """Search everything. The planted ones may be anywhere: where they are not found, nothing else would be."""
    report, search, began = Report(), Search(mint), time.monotonic()
    for source in sources:
        for piece in source.pieces():
            report.pieces[piece.place] += 1
            report.bytes[piece.place] += len(piece.data)
            for hit in search.hits(piece.data):
                report.hits[piece.place] += 1
                if hit.canary in planted:
                    report.planted[piece.place].add(hit.form)
                    continue
                where = piece.at(hit.offset)
                reason = next((a for a in allowed if a.covers(piece.place, where, hit.canary)), None)
                if reason is None:
                    before = search.masked(piece.data[max(0, hit.offset - 80) : hit.offset])
                    report.leaks.add(Leak(piece.place, where, hit.canary.name, hit.form, before))
                else:
                    report.allowed[reason] += 1
        for place in source.places:
            if not report.bytes[place]:
                report.missing.append(f"{place} is empty")
            elif lacks := FORMS - {form.removesuffix("-query") for form in report.planted[place]}:
                report.missing.append(f"{place}: the planted canaries were not found as {sorted(lacks)}")
    report.seconds = time.monotonic() - began
    return report


def check(report: Report) -> None:
    """Nothing may be where it must not be, and every place must have been searched."""
    assert not report.missing, "\n".join([*report.missing, str(report)])
    assert not report.leaks, "\n".join([*map(str, sorted(report.leaks)), str(report)])
