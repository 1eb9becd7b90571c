"""Draws what ``make demo`` saw: when the pod lived, when its Secret did, and when an ordinary Secret would have.

Plain SVG that needs no font and follows the reader's light or dark theme: `python scripts/demo.py --picture FILE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 860, 262
_LEFT, _RIGHT = 176, 24
_ROW, _BAR = 52, 24
_TOP = 46
_STYLE = """
  text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .small { font-size: 12px; fill: #59636e }
  .ordinary { fill: #d1242f }
  .pod { fill: #afb8c1 }
  .runs { fill: #54789c }
  .secret { fill: #1a7f37 }
  .in-bar { fill: #ffffff }
  .axis, .mark { stroke: #818b98; stroke-width: 1 }
  .mark { stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .pod { fill: #57606a } .in-bar { fill: #ffffff }
  }
"""


def picture(seen: Mapping[str, float]) -> str:
    """Return the drawing as SVG.

    :param seen: seconds since the run was applied, by the names of the demo's events.
    """
    bound, made = seen["pod bound to a node"], seen["Secret appears"]
    runs, ended, gone = seen["container runs"], seen["container ended"], seen["Secret gone"]
    begin, end = -0.4, max(ended, gone) + 0.8

    def x(seconds: float) -> float:
        return _LEFT + (seconds - begin) / (end - begin) * (_WIDTH - _LEFT - _RIGHT)

    def bar(row: int, kind: str, since: float, until: float) -> str:
        top, width = _TOP + row * _ROW, max(2.0, x(until) - x(since))
        return (
            f'<rect class="{kind}" x="{x(since):.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="3"/>'
        )

    def label(row: int, text: str, below: str) -> str:
        top = _TOP + row * _ROW
        return (
            f'<text x="{_LEFT - 14}" y="{top + 12}" text-anchor="end">{escape(text)}</text>'
            f'<text class="small" x="{_LEFT - 14}" y="{top + 28}" text-anchor="end">{escape(below)}</text>'
        )

    def inside(row: int, at: float, text: str) -> str:
        return f'<text class="in-bar small" x="{x(at) + 8:.1f}" y="{_TOP + row * _ROW + 16}">{escape(text)}</text>'

    axis = _TOP + 3 * _ROW + 6
    ticks = "".join(
        f'<line class="axis" x1="{x(second):.1f}" x2="{x(second):.1f}" y1="{axis}" y2="{axis + 5}"/>'
        f'<text class="small" x="{x(second):.1f}" y="{axis + 20}" text-anchor="middle">{second} s</text>'
        for second in range(int(end) + 1)
    )
    marks = "".join(
        f'<line class="mark" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_TOP - 8}" y2="{axis}"/>'
        for at in (made, gone)
    )
    exposed = f"{gone - made:.1f} s"
    told = f"In etcd for {exposed}: from {made:.2f} s to {gone:.2f} s after the run was applied."
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
            f' aria-label="{escape(told)}">',
            f"<style>{_STYLE}</style>",
            f'<text class="small" x="{_LEFT}" y="22">One run, as `make demo` watched it. {escape(told)}</text>',
            marks,
            label(0, "an ordinary Secret", "made by hand, once"),
            bar(0, "ordinary", begin, end),
            inside(0, begin, "before, during and after: until somebody thinks of it"),
            label(1, "the pod", "of one task"),
            bar(1, "pod", bound, ended),
            bar(1, "runs", runs, ended),
            inside(1, runs, "container runs"),
            label(2, "the Secret of Runkeys", "made for this pod"),
            bar(2, "secret", made, gone),
            inside(2, made, exposed),
            f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{axis}" y2="{axis}"/>',
            ticks,
            "</svg>\n",
        )
    )
