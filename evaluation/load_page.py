"""The page of a load test: latency against offered rate, and its table."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from .svg import Plot, legend, padded

_KINDS = {"p50": "s-second", "p99": "s-model"}


def render(result: Mapping[str, Any]) -> str:
    """One self-contained HTML page of what `serving.loadtest` found, as its `to_dict` gives it."""
    steps = sorted(result["steps"], key=lambda step: float(step["offered"]))
    css = files("raymill.evaluation").joinpath("templates/report.css").read_text("utf-8")
    said = (f"{result['rate']:,.0f} requests/s within {result['slo']}, limited by "
            f"{result['limited_by']}" if result["rate"] else f"no rate held {result['slo']}")
    page = Markup(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Load test of {0}</title>'
        "<style>{1}</style></head><body><main><header><h1>Load test of {0}</h1><p>{2}</p></header>"
        "<section>{3}</section><section>{4}</section></main></body></html>"
    ).format(f"{result['model']} version {result['version']}", Markup(css), said, _plot(steps),
             _table(steps))
    return str(page)


def _plot(steps: list[Mapping[str, Any]]) -> Markup:
    rates = [float(step["offered"]) for step in steps]
    values = [float(step["quantiles"][name]) for step in steps for name in _KINDS]
    plot = Plot((min(rates) * 0.9, max(rates) * 1.1), (0.0, padded(values)[1]),
                "Latency against offered rate", width=720, height=340, log_x=True)
    plot.axes("requests offered a second", "latency, ms", x_ticks=sorted(set(rates))[::2])
    for name, kind in _KINDS.items():
        points = [(float(s["offered"]), float(s["quantiles"][name])) for s in steps]
        plot.line(points, kind, name)
        for step, (x, y) in zip(steps, points, strict=True):
            plot.dot(x, y, kind if step["holds"] else "s-bad",
                     f"{name} {y:.1f} ms at {x:,.0f}/s {step['why']}")
    keys = legend(*((kind, name) for name, kind in _KINDS.items()), ("s-bad", "broke the objective"))
    return keys + plot.svg()


def _table(steps: list[Mapping[str, Any]]) -> Markup:
    heads = ["offered/s", "answered/s", "p50", "p95", "p99", "p99.9", "shed", "failed", ""]
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(
            Markup('<td class="n">{}</td>').format(cell) for cell in (
                f"{step['offered']:,.0f}", f"{step['answered']:,.0f}",
                *(f"{step['quantiles'][q]:.1f}" for q in ("p50", "p95", "p99", "p99.9")),
                step["shed"], step["failed"], step["why"])))
        for step in steps)
    head = Markup("").join(Markup('<th class="n">{}</th>').format(text) for text in heads)
    return Markup('<table class="metrics"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(head, rows)
