"""Inline SVG by hand: scales, axes and marks, coloured by the page's CSS variables only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

Point = Sequence[float]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within `low`..`high`, about as many as asked."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A short label of an axis or a table: 0.914, 12.5, 1,200, 3.1M."""
    if math.isnan(value):
        return "–"
    return ("−" if value < 0 else "") + _unsigned(abs(value))


def _unsigned(size: float) -> str:
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if size >= least:
            return f"{size / unit:.3g}{letter}"
    if size >= 1000:
        return f"{size:,.0f}"
    return f"{size:.4g}" if size == 0 or size >= 1e-3 else f"{size:.0e}"


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the finite `values` with a margin."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


@dataclass
class Plot:
    """One chart: data ranges `x` and `y` drawn into a box with axes at the left and the bottom.

    Marks are added by methods; `svg()` gives the element. Class names are the page's (report.css):
    s-model, s-rival, s-good, s-bad, s-second, s-muted.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    label: str
    width: int = 460
    height: int = 290
    left: int = 56
    right: int = 16
    top: int = 14
    bottom: int = 42
    log_x: bool = False
    parts: list[Markup] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        low, high = self.x
        if self.log_x:
            value, low, high = (math.log10(max(v, 1e-300)) for v in (value, low, high))
        share = (value - low) / (high - low or 1)
        return round(self.left + share * (self.width - self.left - self.right), 2)

    def at_y(self, value: float) -> float:
        low, high = self.y
        share = (value - low) / (high - low or 1)
        return round(self.height - self.bottom - share * (self.height - self.top - self.bottom), 2)

    def add(self, template: str, *values: object) -> None:
        """Append markup; values are escaped."""
        self.parts.append(Markup(template).format(*values))

    def axes(
        self,
        x_title: str = "",
        y_title: str = "",
        x_ticks: Sequence[float] | None = None,
        y_ticks: Sequence[float] | None = None,
        form: Callable[[float], str] = number,
    ) -> None:
        """Grid lines with labels, and the titles."""
        floor, end = self.height - self.bottom, self.width - self.right
        for value in ticks(*self.y) if y_ticks is None else y_ticks:
            y = self.at_y(value)
            self.add('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', self.left, end, y, y)
            self.text(self.left - 8, y + 4, form(value), "tick end")
        for value in ticks(*self.x) if x_ticks is None else x_ticks:
            x = self.at_x(value)
            self.add('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>', x, x, floor, floor + 4)
            self.text(x, floor + 18, form(value), "tick mid")
        self.add('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>', self.left, end, floor, floor)
        if x_title:
            self.text((self.left + end) / 2, self.height - 6, x_title, "title mid")
        if y_title:
            self.add(
                '<text class="title mid" transform="translate(10 {}) rotate(-90)">{}</text>',
                (self.top + floor) / 2, y_title,
            )

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        self.add('<text class="{}" x="{}" y="{}">{}</text>', kind, round(x, 1), round(y, 1), text)

    def line(self, points: Sequence[Point], kind: str, title: str = "") -> None:
        path = " ".join(f"{self.at_x(x)},{self.at_y(y)}" for x, y in points)
        self.add('<polyline class="line {}" points="{}"><title>{}</title></polyline>',
                 kind, path, title)

    def area(self, upper: Sequence[Point], lower: Sequence[Point], kind: str) -> None:
        path = " ".join(f"{self.at_x(x)},{self.at_y(y)}" for x, y in [*upper, *reversed(lower)])
        self.add('<polygon class="area {}" points="{}"/>', kind, path)

    def dot(self, x: float, y: float, kind: str, title: str = "", radius: float = 3.5) -> None:
        self.add('<circle class="dot {}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>',
                 kind, self.at_x(x), self.at_y(y), radius, title)

    def bar(self, x: tuple[float, float], y: tuple[float, float], kind: str, title: str = "") -> None:
        """A rectangle between two x and two y values, with a hair of space beside it."""
        x0, x1 = sorted((self.at_x(x[0]), self.at_x(x[1])))
        y0, y1 = sorted((self.at_y(y[0]), self.at_y(y[1])))
        self.add(
            '<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
            kind, round(x0 + 0.5, 2), y0, round(max(x1 - x0 - 1, 0.5), 2), round(y1 - y0, 2), title,
        )

    def upright(
        self, x: float, kind: str, text: str = "", side: str = "", low: bool = False
    ) -> None:
        """A vertical rule with a label at its top, or `low` at its foot; `side` is end where the
        label reads to the left."""
        at = self.at_x(x)
        self.add('<line class="rule {}" x1="{}" x2="{}" y1="{}" y2="{}"/>',
                 kind, at, at, self.top, self.height - self.bottom)
        if text:
            y = self.height - self.bottom - 10 if low else self.top + 10
            self.text(at + (-6 if side == "end" else 6), y, text, f"note {side}")

    def svg(self) -> Markup:
        head = Markup(
            '<svg class="chart" viewBox="0 0 {0} {1}" style="max-width:{0}px" role="img" '
            'aria-label="{2}">'
        ).format(self.width, self.height, self.label)
        return head + Markup("").join(self.parts) + Markup("</svg>")


def legend(*entries: tuple[str, str]) -> Markup:
    """`(class, text)` keys above a chart."""
    keys = (
        Markup('<span class="key"><i class="{}"></i>{}</span>').format(kind, escape(text))
        for kind, text in entries
    )
    return Markup('<div class="legend">{}</div>').format(Markup("").join(keys))
