"""The charts of one task's errors: what is confused, ranked, calibrated, missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from .charts import KINDS
from .formats import exact
from .results import Evaluation
from .svg import Plot, legend, number, padded

UNIT = [0.0, 0.25, 0.5, 0.75, 1.0]


@dataclass(frozen=True)
class Figure:
    """A chart with its title, a line on how to read it, and its share of the page's width."""

    title: str
    note: str
    chart: Markup
    wide: bool = False


def figures(evaluation: Evaluation) -> list[Figure]:
    """The task's charts, in reading order."""
    curves = evaluation.curves
    if evaluation.task == "binary":
        return _binary(evaluation, curves)
    if evaluation.task == "multiclass":
        return _multiclass(evaluation, curves)
    return _regression(curves)


def _binary(evaluation: Evaluation, curves: dict[str, Any]) -> list[Figure]:
    cut = float((evaluation.threshold or {}).get("threshold", 0.5))
    negative, positive = evaluation.classes or ["no", "yes"]
    return [
        Figure(
            f"Confusion at the threshold {number(cut)}",
            "Rows are the truth, columns the answer; shares are of each row.",
            confusion(curves["confusion"], [negative, positive]),
        ),
        Figure(
            "Scores by true class",
            f"How sure the model is of “{positive}”; bars are shares of their class.",
            _scores(curves["scores"], cut, negative, positive),
        ),
        Figure("ROC", "Cases found against false alarms, at every threshold.",
               _race(curves["roc"], "false positive rate", "recall", diagonal=True)),
        Figure("Precision and recall", "How many alarms are right, as more cases are found.",
               _race(curves["pr"], "recall", "precision")),
        Figure("Calibration", "What was said against what happened; on the line is honest.",
               _calibration(curves["calibration"], f"share of “{positive}”")),
        Figure(
            f"{curves['sweep']['name'][0].upper()}{curves['sweep']['name'][1:]} by threshold",
            "On the test rows; the threshold itself was chosen on validation rows.",
            _sweep(curves["sweep"], cut),
        ),
    ]


def _multiclass(evaluation: Evaluation, curves: dict[str, Any]) -> list[Figure]:
    classes = len(evaluation.classes or ())
    shown = curves["shown"]
    some = "" if len(shown) == classes else f" The {len(shown)} largest of {classes} classes."
    return [
        Figure("Confusion", f"Rows are the truth, columns the answer.{some}",
               confusion(curves["confusion"], shown), wide=len(shown) > 6),
        Figure("Recall by class", "Share of each class's rows that were found.",
               _recalls(curves["per_class"])),
        Figure("Calibration of the chosen class",
               "How sure the model was against how often it was right.",
               _calibration(curves["calibration"], "share right")),
    ]


def _regression(curves: dict[str, Any]) -> list[Figure]:
    return [
        Figure("Predicted and actual", "A sample of the test rows; on the line is right.",
               _scatter(curves["scatter"])),
        Figure("Residuals", "Actual less predicted; the outer half per cents are in the end bars.",
               _residuals(curves["residuals"])),
        Figure("Residuals over the predicted value",
               "Median and middle 80 % of the residuals; a flat band at zero is best.",
               _bands(curves["bands"]), wide=True),
    ]


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """A heat map whose shade is the share of the row; right answers one hue, wrong another."""
    k = len(classes)
    cell = 116 if k == 2 else max(34, min(64, 640 // k))
    tall = 88 if k == 2 else max(32, cell - 14)
    left = 20 + min(150, max(46, 7 * max(map(len, classes))))
    plot = Plot((0, k), (k, 0), "confusion matrix", width=left + cell * k + 90, left=left, right=90,
                height=54 + tall * k, top=44, bottom=10)
    plot.text(left + cell * k / 2, 12, "answer", "title mid")
    for at, name in enumerate(classes):
        plot.text(left + cell * (at + 0.5), 34, _short(name, cell // 7), "name mid")
        plot.text(left - 10, plot.at_y(at + 0.5) + 4, _short(name, 20), "name end")
        total = sum(matrix[at])
        plot.text(left + cell * k + 12, plot.at_y(at + 0.5) + 4, f"{number(total)} rows", "tick")
        for to, rows in enumerate(matrix[at]):
            _cell(plot, (at, to), rows, rows / max(total, 1), (name, classes[to]))
    return plot.svg()


def _cell(plot: Plot, at: tuple[int, int], rows: int, share: float, names: tuple[str, str]) -> None:
    row, column = at
    x0, x1, y0, y1 = (*map(plot.at_x, (column, column + 1)), *map(plot.at_y, (row, row + 1)))
    kind = "s-model" if row == column else "s-bad" if rows else "s-muted"
    plot.add(
        '<rect class="cell {}" x="{}" y="{}" width="{}" height="{}" rx="3" style="--a:{}">'
        "<title>{} taken for {}: {} rows, {} of the row</title></rect>",
        kind, x0 + 1, y0 + 1, round(x1 - x0 - 2, 1), round(y1 - y0 - 2, 1),
        round(0.06 + 0.86 * share, 3), *names, f"{rows:,}", f"{share:.1%}",
    )
    tone = "on" if share > 0.55 else ""
    middle = (y0 + y1) / 2
    if x1 - x0 > 80:
        plot.text((x0 + x1) / 2, middle - 2, f"{share:.1%}", f"share mid {tone}")
        plot.text((x0 + x1) / 2, middle + 16, f"{rows:,}", f"tick mid {tone}")
    elif rows:
        plot.text((x0 + x1) / 2, middle + 4, number(rows), f"tick mid {tone}")


def _short(text: str, most: int) -> str:
    return text if len(text) <= max(most, 4) else text[: max(most, 4) - 1] + "…"


def _scores(scores: dict[str, list[float]], cut: float, negative: str, positive: str) -> Markup:
    edges = scores["edges"]
    shares = {
        name: [v / max(sum(scores[name]), 1) for v in scores[name]]
        for name in ("negative", "positive")
    }
    top = max(map(max, shares.values())) or 1
    plot = Plot((0, 1), (0, top * 1.12), "scores by class")
    plot.axes(f"probability of “{_short(positive, 24)}”", x_ticks=UNIT, form=number)
    for name, kind in (("negative", "s-rival"), ("positive", "s-second")):
        for at, share in enumerate(shares[name]):
            title = f"{share:.1%} of the class between {edges[at]:.2f} and {edges[at + 1]:.2f}"
            plot.bar((edges[at], edges[at + 1]), (0, share), kind, title)
    plot.upright(cut, "s-muted", "threshold", "end" if cut > 0.7 else "")
    return legend(("s-rival", negative), ("s-second", positive)) + plot.svg()


def _race(
    lines: dict[str, list[list[float]]], x_title: str, y_title: str, diagonal: bool = False
) -> Markup:
    plot = Plot((0, 1), (0, 1), f"{y_title} against {x_title}", height=330)
    plot.axes(x_title, y_title, x_ticks=UNIT, y_ticks=UNIT)
    if diagonal:
        plot.line([(0, 0), (1, 1)], "s-muted dotted", "chance")
    shown = [name for name in lines if name != "constant"]
    for name in [*reversed(shown)]:
        plot.line(lines[name], KINDS.get(name, "s-model"), name)
    return legend(*((KINDS.get(name, "s-model"), name) for name in shown)) + plot.svg()


def _calibration(bins: Sequence[dict[str, float]], y_title: str) -> Markup:
    plot = Plot((0, 1), (0, 1), "calibration", height=330)
    plot.axes("probability said", y_title, x_ticks=UNIT, y_ticks=UNIT)
    plot.line([(0, 0), (1, 1)], "s-muted dotted", "honest")
    plot.line([(b["p"], b["seen"]) for b in bins], "s-model thin")
    for b in bins:
        x = plot.at_x(b["p"])
        plot.add('<line class="whisker thin s-model" x1="{}" x2="{}" y1="{}" y2="{}"/>',
                 x, x, plot.at_y(max(b["low"], 0)), plot.at_y(min(b["high"], 1)))
        title = f"said {b['p']:.3f}, was {b['seen']:.3f} in {b['rows']:,} rows"
        plot.dot(b["p"], b["seen"], "s-model", title, 4)
    return plot.svg()


def _sweep(sweep: dict[str, Any], cut: float) -> Markup:
    values = [float(v) for v in sweep["value"]]
    plot = Plot((0, 1), (0, max(values) * 1.1 or 1), f"{sweep['name']} by threshold", height=330)
    plot.axes("threshold", sweep["name"], x_ticks=UNIT)
    plot.line(list(zip(sweep["threshold"], values, strict=True)), "s-model", sweep["name"])
    at = min(range(len(values)), key=lambda i: abs(sweep["threshold"][i] - cut))
    side = "end" if cut > 0.6 else ""
    plot.upright(cut, "s-muted", f"chosen: {number(cut)}, {exact(values[at])}", side)
    plot.dot(cut, values[at], "s-model", f"{exact(values[at])} at {number(cut)}", 4.5)
    return plot.svg()


def _recalls(rows: Sequence[dict[str, Any]]) -> Markup:
    shown = sorted(rows, key=lambda row: row["recall"])[:16]
    plot = Plot((0, 1), (len(shown) - 0.5, -0.5), "recall by class", height=30 + 26 * len(shown),
                left=130, right=54, top=6, bottom=24)
    plot.axes(x_ticks=UNIT, y_ticks=[])
    for at, row in enumerate(shown):
        y = plot.at_y(at)
        plot.text(plot.left - 10, y + 4, _short(row["class"], 18), "name end")
        title = f"recall {row['recall']:.3f}, precision {row['precision']:.3f}, {row['rows']:,} rows"
        plot.bar((0, row["recall"]), (at - 0.32, at + 0.32), "s-model", title)
        plot.text(plot.at_x(row["recall"]) + 6, y + 4, f"{row['recall']:.2f}", "value")
    return plot.svg()


def _scatter(pairs: Sequence[Sequence[float]]) -> Markup:
    both = padded([v for pair in pairs for v in pair], 0.03)
    plot = Plot(both, both, "predicted and actual", height=360, left=60)
    plot.axes("predicted", "actual")
    for predicted, actual in pairs:
        plot.add('<circle class="speck" cx="{}" cy="{}" r="2.4"/>', plot.at_x(predicted),
                 plot.at_y(actual))
    plot.line([(both[0], both[0]), (both[1], both[1])], "s-second thin", "right")
    return plot.svg()


def _residuals(residuals: dict[str, list[float]]) -> Markup:
    edges, rows = residuals["edges"], residuals["rows"]
    plot = Plot((edges[0], edges[-1]), (0, max(rows) * 1.08 or 1), "residuals", height=360)
    plot.axes("actual less predicted", "rows")
    for at, count in enumerate(rows):
        title = f"{count:,.0f} rows between {number(edges[at])} and {number(edges[at + 1])}"
        plot.bar((edges[at], edges[at + 1]), (0, count), "s-model", title)
    if edges[0] < 0 < edges[-1]:
        plot.upright(0, "s-muted")
    return plot.svg()


def _bands(bands: Sequence[dict[str, float]]) -> Markup:
    x = [b["predicted"] for b in bands]
    y = padded([b[key] for b in bands for key in ("p10", "p90")] + [0.0])
    plot = Plot((min(x), max(max(x), min(x) + 1e-9)), y, "residuals by predicted value", width=940,
                height=280, left=60)
    plot.axes("predicted", "actual less predicted")
    plot.area([(b["predicted"], b["p90"]) for b in bands],
              [(b["predicted"], b["p10"]) for b in bands], "s-model")
    plot.line([(min(x), 0), (max(x), 0)], "s-muted dotted")
    plot.line([(b["predicted"], b["median"]) for b in bands], "s-model", "median")
    for b in bands:
        title = f"near {number(b['predicted'])}: median {number(b['median'])}, {b['rows']:,} rows"
        plot.dot(b["predicted"], b["median"], "s-model", title, 3)
    return plot.svg()
