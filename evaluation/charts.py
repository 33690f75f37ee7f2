"""The report's charts that do not depend on the task: rivals, search, learning, columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .formats import exact, label
from .results import Estimate, Evaluation, maximised
from .svg import Plot, legend, padded

KINDS = {"constant": "s-rival dotted", "linear": "s-rival dashed", "boosting": "s-second",
         "champion": "s-good"}


def rivals(evaluation: Evaluation) -> Markup:
    """A dot and an interval for the model and each rival, best on top."""
    metric = evaluation.metric
    rows = [("model", evaluation.headline, "s-model")]
    rows += [
        (name, rival.metrics[metric], KINDS.get(name, "s-rival").split()[0])
        for name, rival in evaluation.rivals.items()
    ]
    rows.sort(key=lambda row: row[1].value, reverse=maximised(metric))
    low, high = padded([v for _, e, _ in rows for v in (e.value, e.low, e.high)], 0.08)
    plot = Plot(
        (low, high), (len(rows) - 0.5, -0.5), f"{metric} of the model and its rivals",
        width=660, height=58 + 48 * len(rows), left=92, right=132, top=10, bottom=44,
    )
    plot.axes(label(metric), y_ticks=[])
    edge = plot.at_x(evaluation.headline.value)
    plot.add('<line class="rule s-model" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>',
             edge, plot.top, plot.height - plot.bottom)
    for at, (name, estimate, kind) in enumerate(rows):
        _interval(plot, at, name, estimate, kind)
    return plot.svg()


def _interval(plot: Plot, at: int, name: str, estimate: Estimate, kind: str) -> None:
    y = plot.at_y(at)
    strong = "strong" if kind == "s-model" else ""
    plot.text(plot.left - 12, y + 4, name, f"name end {strong}")
    if math.isfinite(estimate.low):
        plot.add('<line class="whisker {}" x1="{}" x2="{}" y1="{}" y2="{}"/>',
                 kind, plot.at_x(estimate.low), plot.at_x(estimate.high), y, y)
    title = f"{name}: {exact(estimate.value)}, {exact(estimate.low)} to {exact(estimate.high)}"
    plot.dot(estimate.value, at, kind, title, 6 if strong else 5)
    plot.text(plot.width - plot.right + 14, y - 1, exact(estimate.value), f"value {strong}")
    plot.text(plot.width - plot.right + 14, y + 13,
              f"{exact(estimate.low)} – {exact(estimate.high)}", "tick")


def learning(history: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[str, Markup]]:
    """(caption, chart) of the losses and of the validation metric by epoch."""
    figures = []
    losses = [("train_loss", "s-rival", "training"), ("val_loss", "s-model", "validation")]
    wanted = [("Loss by epoch", losses), (f"Validation {label(metric)} by epoch",
              [(f"val_{metric}", "s-model", "validation")])]
    best = _best_epoch(history, metric)
    for caption, keys in wanted:
        series = [(kind, name, _series(history, key)) for key, kind, name in keys]
        series = [each for each in series if each[2]]
        if series:
            figures.append((caption, _epochs(caption, series, best)))
    return figures


def _series(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    found = [(float(row.get("epoch", at)), row.get(key)) for at, row in enumerate(history)]
    return [(x, float(y)) for x, y in found if y is not None and math.isfinite(float(y))]


def _best_epoch(history: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    series = _series(history, f"val_{metric}")
    pick = max if maximised(metric) else min
    return pick(series, key=lambda point: point[1])[0] if series else None


def _epochs(
    caption: str, series: list[tuple[str, str, list[tuple[float, float]]]], best: float | None
) -> Markup:
    epochs = [x for _, _, points in series for x, _ in points]
    first, last = min(epochs), max(epochs)
    plot = Plot((first, last if last > first else first + 1),
                padded([y for _, _, points in series for _, y in points]), caption)
    plot.axes("epoch", x_ticks=_whole(first, last))
    if best is not None:
        late = best > (first + last) / 2
        rising = series[-1][2][-1][1] > series[-1][2][0][1]
        plot.upright(best, "s-muted", f"best, epoch {best:g}", "end" if late else "", rising)
    for kind, name, points in series:
        plot.line(points, kind, name)
        if len(points) <= 40:
            for x, y in points:
                plot.dot(x, y, kind, f"epoch {x:g}: {exact(y)}", 2.5)
    return legend(*((kind, name) for kind, name, _ in series)) + plot.svg()


def _whole(first: float, last: float) -> list[float]:
    step = max(1, math.ceil((last - first) / 8))
    return [float(k) for k in range(int(first), int(last) + 1, step)]


def history(trials: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """Each trial's value in order, and the best so far."""
    known = [t for t in trials if t.get("value") is not None]
    if not known:
        return Markup("")
    last = max(int(t["number"]) for t in trials)
    plot = Plot((-0.5, last + 0.5), padded([float(t["value"]) for t in known]), "trials in order")
    plot.axes("trial", x_ticks=_whole(0, last))
    best, steps = None, []
    pick = max if maximised(metric) else min
    for trial in sorted(known, key=lambda t: int(t["number"])):
        number_, value = int(trial["number"]), float(trial["value"])
        if trial["state"] == "complete":
            new = value if best is None else pick(best, value)
            steps += [(number_, new if best is None else best), (number_, new)]
            best = new
    if steps and best is not None:
        plot.line([*steps, (last + 0.5, best)], "s-model thin", "best so far")
    for trial in known:
        kind = "s-model" if trial["state"] == "complete" else "s-rival hollow"
        title = f"trial {trial['number']}, {trial['state']}: {exact(float(trial['value']))}"
        plot.dot(int(trial["number"]), float(trial["value"]), kind, title, 4.5)
    floor = plot.height - plot.bottom
    for trial in trials:
        if trial.get("value") is None:
            plot.text(plot.at_x(int(trial["number"])), floor - 5, "×", "cross mid")
    keys = [("s-model round", "complete"), ("s-rival hollow round", "stopped early")]
    return legend(*keys, ("s-model", "best so far")) + plot.svg()


def trial_curves(trials: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """Every trial's metric by epoch, the best one in colour."""
    lines = {
        int(t["number"]): sorted((int(e), float(v)) for e, v in (t.get("values") or {}).items())
        for t in trials
    }
    lines = {k: points for k, points in lines.items() if points}
    done = [t for t in trials if t.get("value") is not None and int(t["number"]) in lines]
    if not done:
        return Markup("")
    pick = max if maximised(metric) else min
    best = int(pick(done, key=lambda t: float(t["value"]))["number"])
    epochs = [x for points in lines.values() for x, _ in points]
    low, high = _without_outliers([y for points in lines.values() for _, y in points])
    plot = Plot((min(epochs), max(max(epochs), min(epochs) + 1)), (low, high), "trials by epoch")
    plot.axes("epoch", x_ticks=_whole(min(epochs), max(epochs)))
    for trial, points in sorted(lines.items(), key=lambda item: item[0] == best):
        shown = [(x, min(max(y, low), high)) for x, y in points]
        plot.line(shown, "s-model" if trial == best else "s-rival faint", f"trial {trial}")
        plot.dot(*shown[-1], "s-model" if trial == best else "s-rival", f"trial {trial}", 2.5)
    return legend(("s-model", f"trial {best}, the best"), ("s-rival", "the others")) + plot.svg()


def _without_outliers(values: list[float]) -> tuple[float, float]:
    """The padded range of the values without the far tail of first epochs."""
    ranked = sorted(v for v in values if math.isfinite(v))
    cut = len(ranked) // 50
    return padded(ranked[cut : len(ranked) - cut] or ranked)


def bars(shares: Mapping[str, float], what: str) -> Markup:
    """Horizontal bars of named shares, largest on top."""
    rows = sorted(shares.items(), key=lambda item: -item[1])[:12]
    if not rows:
        return Markup("")
    top = max(value for _, value in rows) or 1
    plot = Plot((0, top), (len(rows) - 0.5, -0.5), what, width=900, height=18 + 30 * len(rows),
                left=190, right=60, top=6, bottom=12)
    for at, (name, value) in enumerate(rows):
        plot.text(plot.left - 10, plot.at_y(at) + 4, name, "name end")
        plot.bar((0, value), (at - 0.3, at + 0.3), "s-model", f"{name}: {value:.1%}")
        plot.text(plot.at_x(value) + 8, plot.at_y(at) + 4, f"{value:.0%}", "value")
    return plot.svg()
