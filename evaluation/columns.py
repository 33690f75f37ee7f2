"""The training rows' reference statistics, one table line a column."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from .svg import Plot, number

SHOWN = 200  # columns in the table


@dataclass(frozen=True)
class ColumnView:
    """A column as the report shows it; texts are ready to print."""

    name: str
    kind: str
    missing: str
    distinct: str
    range: str
    spark: Markup


def columns(profile: Mapping[str, Any]) -> list[ColumnView]:
    """The lines for `profile["columns"]`, at most SHOWN of them."""
    described = list(profile.get("columns", {}).items())[:SHOWN]
    return [_view(name, column) for name, column in described]


def _view(name: str, column: Mapping[str, Any]) -> ColumnView:
    rows, nulls = int(column.get("count", 0)), int(column.get("nulls", 0))
    distinct = column.get("distinct")
    return ColumnView(
        name=name,
        kind=str(column.get("kind", "")),
        missing=f"{nulls / max(rows, 1):.1%}" if nulls else "",
        distinct=number(float(distinct)) if distinct is not None else "",
        range=_range(column),
        spark=_spark(column),
    )


def _range(column: Mapping[str, Any]) -> str:
    if column.get("type") == "timestamp" and column.get("min") is not None:
        return f"{_moment(column['min'])} to {_moment(column['max'])}"
    if column.get("mean") is not None and column.get("min") is not None:
        low, mean, high = (_plain(column[key]) for key in ("min", "mean", "max"))
        return f"{low} · {mean} · {high}"
    if words := column.get("words"):
        said = f"{_plain(words['mean'])} words"
        return ": ".join([said, ", ".join(word for word, _ in _top(words)[:3])]).removesuffix(": ")
    if top := _top(column):
        return ", ".join(value for value, _ in top[:3])
    return ""


def _plain(value: float) -> str:
    return number(float(value))


def _moment(microseconds: float) -> str:
    moment = dt.datetime.fromtimestamp(microseconds / 1e6, dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M}"


def _top(column: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(str(value), int(count)) for value, count in column.get("top") or ()]


def _spark(column: Mapping[str, Any]) -> Markup:
    if edges := column.get("edges"):
        say = _moment if column.get("type") == "timestamp" else number
        return spark(*density([float(edge) for edge in edges], say))
    top = _top(column.get("words", column))[:22]
    return spark([count for _, count in top], [f"{value}: {count:,}" for value, count in top])


def spark(heights: Sequence[float], titles: Sequence[str]) -> Markup:
    """A column's distribution in a table cell."""
    if not heights or max(heights) <= 0:
        return Markup("")
    plot = Plot((0, max(len(heights), 6)), (0, max(heights)), "distribution", width=132, height=30,
                left=0, right=0, top=2, bottom=1)
    for at, height in enumerate(heights):
        plot.bar((at, at + 1), (0, height), "s-model", titles[at])
    plot.add('<line class="axis" x1="0" x2="132" y1="29.5" y2="29.5"/>')
    return plot.svg()


def density(
    edges: Sequence[float], say: Callable[[float], str] = number, bins: int = 18
) -> tuple[list[float], list[str]]:
    """Heights and titles of equal bins from equally likely quantile edges; the outer
    twentieth (hundredth, of many edges) is put into the end bins, so that one far value does not
    flatten the rest."""
    count = len(edges) - 1
    if count < 2 or not edges[-1] > edges[0]:
        return [], []
    trim = max(1, round(count / 100))
    low, high = edges[trim], edges[count - trim]
    if not high > low:
        low, high = edges[0], edges[-1]
    bounds = [low + (high - low) * k / bins for k in range(bins + 1)]
    below = [0.0, *(_share_below(edges, bound) for bound in bounds[1:-1]), 1.0]
    titles = [f"{say(a)} to {say(b)}" for a, b in pairwise(bounds)]
    titles[0], titles[-1] = f"below {say(bounds[1])}", f"from {say(bounds[-2])}"
    return [b - a for a, b in pairwise(below)], titles


def _share_below(edges: Sequence[float], bound: float) -> float:
    return max(_passed(edges, bound), default=0.0)


def _passed(edges: Sequence[float], bound: float) -> Iterator[float]:
    count = len(edges) - 1
    for k, (low, high) in enumerate(pairwise(edges)):
        if bound < high:
            yield (k + max(0.0, (bound - low) / (high - low))) / count if bound >= low else 0.0
            return
        yield (k + 1) / count
