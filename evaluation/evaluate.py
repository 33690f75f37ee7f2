"""Measure a model on its test rows beside the baselines and the champion, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raymill.errors import DataError, Problem
from raymill.events import Event, Notify, ignore, note
from raymill.training.objective import DEFAULT_METRIC

from . import baselines
from .bootstrap import Contender, bootstrap
from .curves import curves
from .encoding import Encoding
from .gates import BASELINE
from .measures import Cut
from .reading import Scorer, chunks, sample, score, targets
from .results import Estimate, Evaluation, Rival
from .rules import Beats, parse_gate
from .spec import ObjectiveSpec, ThresholdSpec
from .threshold import choose

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared
    from raymill.training.predictor import Predictor

CALLS = 200  # one-row predictions that are timed


def evaluate(
    predictor: Predictor,
    prepared: Prepared,
    objective: ObjectiveSpec,
    metric: str | None = None,
    notify: Notify = ignore,
    *,
    champion: Predictor | None = None,
) -> Evaluation:
    """Everything the gates and the report need to know of one model.

    A baseline that a gate names is fitted even where `objective.baselines` leaves it out.

    Args:
        metric: the one the model was optimised for (None: the objective's, or the task's).
        champion: the model that serves now; it is compared where it reads the same columns and
            predicts the same thing, else the reason is kept in `skipped`.

    Raises:
        DataError: there are no test rows.
    """
    schema = predictor.bundle.schema
    task, classes = schema.task, list(schema.classes) if schema.classes else None
    metric = metric or objective.metric or DEFAULT_METRIC[task]
    if not prepared.rows["test"]:
        raise DataError(
            Problem(
                rule="an evaluation needs test rows",
                got="none",
                cure="Set data.split.test above 0, or name files in data.test.",
            )
        )
    rivals = _fit_all(prepared, objective, metric, notify)
    scorers: dict[str, Scorer] = {"model": predictor.scores}
    scorers |= {rival.name: rival.scores for rival in rivals}
    cuts = {"model": _cut(predictor.bundle.objective)}
    cuts |= _baseline_cuts(prepared, objective, rivals)
    skipped = {}
    if champion is not None and (reason := incomparable(champion, predictor)):
        skipped["champion"] = reason
    elif champion is not None:
        scorers["champion"], cuts["champion"] = champion.scores, _cut(champion.bundle.objective)
    y, scores = score(prepared, "test", scorers)
    intervals = bootstrap(
        task,
        y,
        {name: Contender(scores[name], _priced(cuts[name], objective)) for name in scores},
        resamples=objective.bootstrap,
        confidence=objective.confidence,
        step=lambda done, total: notify(
            Event("progress", {"stage": "evaluate", "done": done, "total": total,
                               "unit": "resamples"})
        ),
    )
    if intervals.note:
        note(notify, intervals.note)
    fitted = {rival.name: rival for rival in rivals}
    return Evaluation(
        task=task,
        metric=metric,
        classes=classes,
        rows=len(y),
        threshold=predictor.bundle.objective if task == "binary" else None,
        metrics=intervals.metrics["model"],
        rivals={
            name: _rival(name, fitted.get(name), intervals.metrics[name], difference)
            for name, difference in intervals.difference.items()
        },
        curves=curves(task, y, scores, _priced(cuts["model"], objective), classes),
        footprint=footprint(predictor, next(chunks(prepared, "test"))),
        confidence=objective.confidence,
        resamples=objective.bootstrap,
        skipped=skipped,
        notes=[intervals.note] if intervals.note else [],
    )


def _fit_all(
    prepared: Prepared, objective: ObjectiveSpec, metric: str, notify: Notify
) -> list[baselines.Baseline]:
    names = _wanted(objective)
    if not names:
        return []
    schema = prepared.transform.schema
    train, rows = sample(prepared, "train", baselines.ROWS), prepared.rows["train"]
    y, encoding = targets(prepared, train), encode(prepared, train)
    fitted = []
    for done, name in enumerate(names):
        notify(Event("progress", {"stage": "evaluate", "done": done, "total": len(names),
                                  "unit": "baselines"}))
        classes = len(schema.classes or ())
        fitted.append(baselines.fit(name, schema.task, train, y, encoding, classes, metric, rows))
        note(notify, f"baseline {name}: {fitted[-1].note} ({fitted[-1].seconds:.1f} s)")
    return fitted


def _wanted(objective: ObjectiveSpec) -> list[str]:
    """The spec's baselines and those that its gates name."""
    named: list[str] = list(objective.baselines)
    for gate in map(parse_gate, objective.gates):
        if isinstance(gate, Beats) and gate.rival != "champion":
            named += BASELINE if gate.rival == "baseline" else (gate.rival,)
    return list(dict.fromkeys(named))


def encode(prepared: Prepared, train: pa.Table) -> Encoding:
    """The baselines' encoding of the training rows."""
    contract = prepared.contract
    kinds = {name: contract.columns[name].kind for name in contract.features}
    return Encoding.fit(train, kinds, lambda rows: prepared.transform.apply(rows)["image"])


def _baseline_cuts(
    prepared: Prepared, objective: ObjectiveSpec, rivals: list[baselines.Baseline]
) -> dict[str, Cut]:
    """A baseline's own threshold by the spec's rule on validation, as the model's was chosen."""
    rule = objective.threshold
    if prepared.transform.schema.task != "binary" or (rule.cost is None and rule.best is None):
        fixed = choose(np.zeros(1), np.zeros(1), ThresholdSpec(fixed=rule.fixed))
        return {rival.name: _cut(fixed) for rival in rivals}
    y, scores = score(prepared, "validation", {rival.name: rival.scores for rival in rivals})
    return {name: _cut(choose(y, each, rule)) for name, each in scores.items()}


def _cut(objective: Mapping[str, object]) -> Cut:
    threshold = objective.get("threshold")
    return Cut(float(str(threshold)) if threshold is not None else Cut.threshold)


def _priced(cut: Cut, objective: ObjectiveSpec) -> Cut:
    costs = objective.threshold.cost
    if costs is None:
        return cut
    return Cut(cut.threshold, costs.false_positive, costs.false_negative)


def incomparable(champion: Predictor, predictor: Predictor) -> str:
    """Why the champion can't score the model's test rows; empty where it can."""
    theirs, ours = champion.bundle, predictor.bundle
    if (theirs.schema.task, theirs.schema.classes) != (ours.schema.task, ours.schema.classes):
        return "it predicts other classes or another task"
    for name in theirs.contract.features:
        rule = ours.contract.columns.get(name)
        if rule is None:
            return f"it reads a column {name!r} that this data does not have"
        if rule.type != theirs.contract.columns[name].type:
            return f"it reads column {name!r} as {theirs.contract.columns[name].type}"
    return ""


def _rival(
    name: str,
    fitted: baselines.Baseline | None,
    metrics: dict[str, Estimate],
    difference: dict[str, Estimate],
) -> Rival:
    if fitted is None:
        return Rival(name, metrics, difference, note="the model that serves now")
    return Rival(name, metrics, difference, fitted.fitted_on, fitted.seconds, fitted.note)


def footprint(predictor: Predictor, table: pa.Table) -> dict[str, float]:
    """`p50_latency_ms` and `p99_latency_ms` of one row through `predict`, `model_mb` on disk."""
    rows = [table.slice(i % len(table), 1) for i in range(CALLS)]
    for row in rows[: CALLS // 10]:
        predictor.predict(row)
    taken = []
    for row in rows:
        started = perf_counter()
        predictor.predict(row)
        taken.append(1000 * (perf_counter() - started))
    p50, p99 = np.quantile(taken, [0.5, 0.99])
    size = sum(file.stat().st_size for file in Path(predictor.bundle.path).rglob("*"))
    return {
        "p50_latency_ms": float(p50), "p99_latency_ms": float(p99), "model_mb": size / 1e6,
    }
