"""How a search went, by its fields: parallel coordinates, slices, contour, front, timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from .axes import Axis, axes_of
from .formats import exact, label
from .svg import Plot, legend, number, padded, ticks

Trials = Sequence[Mapping[str, Any]]
Space = Mapping[str, Mapping[str, Any]]
MOST_AXES, MOST_SLICES = 8, 9
STATES = {"complete": "s-model", "pruned": "s-rival", "failed": "s-bad"}
UNIT = (0.0, 1.0)


def valued(trials: Trials) -> list[Mapping[str, Any]]:
    return [trial for trial in trials if trial.get("value") is not None]


def ordered_axes(trials: Trials, space: Space, shares: Mapping[str, float]) -> list[Axis]:
    """What mattered most comes first."""
    return sorted(axes_of(trials, space), key=lambda axis: -shares.get(axis.name, 0.0))


def parallel(trials: Trials, axes: Sequence[Axis], metric: str, maximize: bool) -> Markup:
    """A line a trial through its values and to its metric; the best quarter in colour."""
    known = sorted(valued(trials), key=lambda t: float(t["value"]), reverse=maximize)
    shown = list(axes[:MOST_AXES])
    if len(known) < 2 or not shown:
        return Markup("")
    values = [float(trial["value"]) for trial in known]
    result = Axis(label(metric), min(values), max(values))
    every = [*shown, result]
    plot = Plot((0, len(every) - 1), UNIT, "parallel coordinates", width=940, height=340,
                left=70, right=70, top=34, bottom=20)
    best = max(1, len(known) // 4)
    for rank, trial in reversed(list(enumerate(known))):
        points = [axis.at(trial["params"].get(axis.name)) for axis in shown]
        points.append(result.at(float(trial["value"])))
        kind = "s-model" if rank == 0 else "s-model faint" if rank < best else "s-rival faint"
        _pieces(plot, points, kind, f"trial {trial['number']}: {exact(float(trial['value']))}")
    for place, axis in enumerate(every):
        _upright_axis(plot, place, axis, last=place == len(every) - 1)
    keys = [("s-model", "the best"), ("s-model thin", f"the best {best} of {len(known)}"),
            ("s-rival", "the others")]
    return legend(*(keys if best > 1 else [keys[0], keys[2]])) + plot.svg()


def _pieces(plot: Plot, points: Sequence[float | None], kind: str, title: str) -> None:
    """The line of a trial; it has a gap at a field of a branch that was not drawn."""
    piece: list[tuple[float, float]] = []
    for place, point in enumerate([*points, None]):
        if point is not None:
            piece.append((place, point))
            continue
        if len(piece) > 1:
            plot.line(piece, kind, title)
        for x, y in piece if len(piece) == 1 else ():
            plot.dot(x, y, kind.split()[0], title, 2.5)
        piece = []


def _upright_axis(plot: Plot, place: int, axis: Axis, last: bool) -> None:
    x = plot.at_x(place)
    plot.add('<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>', x, plot.top,
             plot.height - plot.bottom)
    name = axis.name if last else axis.name.rpartition(".")[2]
    plot.text(x, 14, name, "name mid strong" if last else "name mid")
    for at, text in axis.marks():
        plot.add('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>', x - 3, x + 3,
                 plot.at_y(at), plot.at_y(at))
        plot.text(x + (8 if last else -7), plot.at_y(at) + 4, text,
                  "tick halo" if last else "tick end halo")


def slices(trials: Trials, axes: Sequence[Axis], metric: str, best: int | None) -> Markup:
    """A small chart a field: its value against the metric, each trial a dot."""
    known = valued(trials)
    if len(known) < 2 or not axes:
        return Markup("")
    y = padded([float(trial["value"]) for trial in known])
    made = [_slice(known, axis, y, metric, best) for axis in axes[:MOST_SLICES]]
    keys = legend(("s-model round", "complete"), ("s-rival hollow round", "stopped early"),
                  ("s-second round", "the best"))
    return keys + Markup('<div class="smalls">{}</div>').format(Markup("").join(made))


def _slice(known: Trials, axis: Axis, y: tuple[float, float], metric: str,
           best: int | None) -> Markup:
    plot = Plot(UNIT, y, f"{label(metric)} by {axis.name}", width=300, height=190, left=50,
                right=10, top=8, bottom=40)
    plot.axes(axis.name, x_ticks=[], y_ticks=ticks(*y, about=3))
    _floor(plot, axis)
    for trial in sorted(known, key=lambda t: t["number"] == best):
        x = axis.at(trial["params"].get(axis.name))
        if x is not None:
            value = float(trial["value"])
            plot.dot(x, value, _kind(trial, best), f"trial {trial['number']}: {exact(value)}", 3.4)
    return plot.svg()


def _kind(trial: Mapping[str, Any], best: int | None) -> str:
    if trial["number"] == best:
        return "s-second"
    return "s-model" if trial["state"] == "complete" else "s-rival hollow"


def _floor(plot: Plot, axis: Axis) -> None:
    """The labels of a field below the chart."""
    y = plot.height - plot.bottom
    marks = axis.marks(3)
    for at, text in marks[:: -(-len(marks) // 5)]:
        x = plot.at_x(at)
        plot.add('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>', x, x, y, y + 4)
        plot.text(x, y + 17, text, "tick mid")


def contour(trials: Trials, axes: Sequence[Axis], metric: str, maximize: bool,
            best: int | None) -> tuple[str, Markup] | None:
    """(the two fields, chart): shades are the values of near trials, weighed by their distance.

    The two numeric fields that mattered most; None where there are no two, or under 6 trials.
    """
    numeric = [axis for axis in axes if not axis.options][:2]
    if len(numeric) < 2:
        return None
    across, up = numeric
    points = []
    for trial in valued(trials):
        x, y = across.at(trial["params"].get(across.name)), up.at(trial["params"].get(up.name))
        if x is not None and y is not None:
            points.append((x, y, float(trial["value"]), trial))
    if len(points) < 6:
        return None
    plot = Plot(UNIT, UNIT, f"{label(metric)} by {across.name} and {up.name}", height=340, left=64)
    _shades(plot, [(x, y, value) for x, y, value, _ in points], maximize)
    plot.axes(across.name, x_ticks=[], y_ticks=[])
    _floor(plot, across)
    for at, text in up.marks():
        plot.text(plot.left - 8, plot.at_y(at) + 4, text, "tick end")
    plot.add('<text class="title mid" transform="translate(10 {}) rotate(-90)">{}</text>',
             (plot.top + plot.height - plot.bottom) / 2, up.name)
    for x, y, value, trial in sorted(points, key=lambda p: p[3]["number"] == best):
        plot.dot(x, y, _kind(trial, best), f"trial {trial['number']}: {exact(value)}", 4)
    return f"{across.name} and {up.name}", plot.svg()


def _shades(plot: Plot, points: Sequence[tuple[float, float, float]], maximize: bool) -> None:
    """Cells whose shade is the rank of Shepard's weighted mean among the trials' values."""
    columns, rows = 26, 18
    ranked = sorted((value for _, _, value in points), reverse=not maximize)
    for column in range(columns):
        for row in range(rows):
            x, y = (column + 0.5) / columns, (row + 0.5) / rows
            weights = [1 / ((x - a) ** 2 + (y - b) ** 2 + 1e-3) ** 1.5 for a, b, _ in points]
            mean = sum(w * p[2] for w, p in zip(weights, points, strict=True)) / sum(weights)
            below = sum((value < mean) if maximize else (value > mean) for value in ranked)
            x0, x1 = plot.at_x(column / columns), plot.at_x((column + 1) / columns)
            y0, y1 = plot.at_y((row + 1) / rows), plot.at_y(row / rows)
            plot.add('<rect class="cell s-model" x="{}" y="{}" width="{}" height="{}" '
                     'style="--a:{}"/>', x0, y0, round(x1 - x0 + 0.3, 2), round(y1 - y0 + 0.3, 2),
                     round(0.04 + 0.62 * (below / len(ranked)) ** 1.5, 3))


def pareto(trials: Trials, names: Sequence[str], front: Sequence[int],
           chosen: int | None) -> Markup:
    """Each trial by two objectives; the front is joined, the choice marked."""
    if len(names) < 2:
        return Markup("")
    known = [t for t in trials if set(names[:2]) <= set(t.get("measures", {}))]
    if len(known) < 2:
        return Markup("")
    at = {t["number"]: (float(t["measures"][names[1]]), float(t["measures"][names[0]]))
          for t in known}
    xs, ys = zip(*at.values(), strict=True)
    plot = Plot(padded(xs), padded(ys), f"{names[0]} against {names[1]}", width=940, height=360)
    plot.axes(label(names[1]), label(names[0]))
    on_front = sorted(at[n] for n in front if n in at)
    if len(on_front) > 1:
        plot.line(on_front, "s-model thin", "the front")
    for trial in sorted(at, key=lambda n: (n == chosen, n in front)):
        kind = ("s-second" if trial == chosen else
                "s-model" if trial in front else "s-rival hollow")
        x, y = at[trial]
        title = f"trial {trial}: {names[0]} {number(y)}, {names[1]} {number(x)}"
        plot.dot(x, y, kind, title, 5 if trial == chosen else 4)
    keys = [("s-second round", "chosen"), ("s-model round", "on the front"),
            ("s-rival hollow round", "another is better in both")]
    return legend(*keys) + plot.svg()


def timeline(trials: Trials) -> Markup:
    """When each trial ran and where: a lane a GPU, or a lane a slot; the numbers are the trials'."""
    placed = [t for t in trials if t.get("place", {}).get("ended") is not None]
    if not placed:
        return Markup("")
    start = min(float(t["place"]["began"]) for t in placed)
    end = max(float(t["place"]["ended"]) for t in placed) - start
    lanes = _lanes(placed)
    rows = sum(len(slots) for _, slots in lanes)
    plot = Plot((0, end or 1), (rows - 0.5, -0.5), "timeline of the trials", width=940,
                height=58 + 24 * rows, left=74, right=16, top=8, bottom=44)
    plot.axes("seconds since the first trial began", y_ticks=[])
    row = 0
    for name, slots in lanes:
        plot.text(plot.left - 10, plot.at_y(row + (len(slots) - 1) / 2) + 4, name, "name end")
        for slot in slots:
            for trial in slot:
                _span(plot, row, trial, start)
            row += 1
    keys = [(kind, "stopped early" if state == "pruned" else state)
            for state, kind in STATES.items() if any(t["state"] == state for t in placed)]
    return legend(*keys) + plot.svg()


def _span(plot: Plot, row: int, trial: Mapping[str, Any], start: float) -> None:
    place = trial["place"]
    low, high = float(place["began"]) - start, float(place["ended"]) - start
    title = f"trial {trial['number']}, {trial['state']}: {high - low:,.1f} s on {place['device']}"
    plot.bar((low, high), (row - 0.38, row + 0.38), STATES[trial["state"]], title)
    if plot.at_x(high) - plot.at_x(low) > 18:
        plot.text((plot.at_x(low) + plot.at_x(high)) / 2, plot.at_y(row) + 4,
                  str(trial["number"]), "tick mid on")


def _lanes(placed: Trials) -> list[tuple[str, list[list[Mapping[str, Any]]]]]:
    """(name, slots) of each GPU, or of them all where there is none; a slot's trials follow each
    other in time."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trial in sorted(placed, key=lambda t: float(t["place"]["began"])):
        for gpu in trial["place"].get("gpus") or [""]:
            groups.setdefault(f"GPU {gpu}" if gpu != "" else "", []).append(trial)
    lanes = []
    for name, members in sorted(groups.items()):
        slots: list[list[Mapping[str, Any]]] = []
        for trial in members:
            free = (s for s in slots if s[-1]["place"]["ended"] <= trial["place"]["began"] + 0.05)
            slot = next(free, None)
            if slot is None:
                slots.append([trial])
            else:
                slot.append(trial)
        lanes += [(name, slots)] if name else [(f"slot {n}", [s]) for n, s in enumerate(slots, 1)]
    return lanes
