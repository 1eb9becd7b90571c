"""What was measured, what it is compared with, and whether that is as good as it shall be."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Spread:
    """Median, 90th and 95th percentile of ``n`` samples."""

    p50: float
    p90: float
    p95: float
    n: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Raises StatisticsError for fewer than two samples."""
        twentieths = quantiles(samples, n=20, method="inclusive")
        return cls(twentieths[9], twentieths[17], twentieths[18], len(samples))

    def text(self, unit: str) -> str:
        return f"{self.p50:.1f} / {self.p90:.1f} {unit}"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    :ivar measured: ours, as text with its unit. :ivar peer: what it is compared with, measured in the same run.
    :ivar score: the number that the aim is about: the ratio of the medians, or the figure itself.
    :ivar aim: the largest score that is good enough; None: nothing was promised.
    """

    what: str
    measured: str
    peer: str = ""
    score: float | None = None
    aim: float | None = None
    details: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.aim is None or self.score is None:
            return ""
        return "ok" if self.score <= self.aim else "MISSED"


def compared(what: str, ours: Sequence[float], peers: Sequence[float], aim: float) -> Figure:
    """Durations in ms against those of a peer: the ratio of the medians."""
    mine, theirs = Spread.of(ours), Spread.of(peers)
    details = {
        **{f"ours_{key}": value for key, value in asdict(mine).items()},
        **{f"peer_{key}": value for key, value in asdict(theirs).items()},
        "ratio_p90": mine.p90 / theirs.p90,
    }
    return Figure(what, mine.text("ms"), theirs.text("ms"), mine.p50 / theirs.p50, aim, details)


def machine() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
    }


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned lines."""
    rows = [("", "measured", "compared with", "score", "aim", "")]
    for figure in figures:
        score = "" if figure.score is None else f"{figure.score:.2f}"
        aim = "" if figure.aim is None else f"<= {figure.aim:g}"
        rows.append((figure.what, figure.measured, figure.peer, score, aim, figure.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def save(figures: Sequence[Figure], facts: dict[str, object]) -> Path:
    """Write everything as JSON, and return where."""
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%dT%H%M%SZ}.json"
    content = {
        "time": now.isoformat(timespec="seconds"),
        "machine": facts,
        "figures": [{**asdict(figure), "verdict": figure.verdict} for figure in figures],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
