"""One self-contained HTML page about a run: no scripts, no network, light and dark."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import charts
from .columns import columns
from .figures import figures
from .formats import exact
from .gates import Verdict
from .results import Evaluation, maximised
from .search_report import SearchData, view
from .templating import TEMPLATES, environment
from .words import findings, summary

TASKS = {"binary": "binary classification", "multiclass": "multi-class classification",
         "regression": "regression"}


@dataclass(frozen=True)
class ReportData:
    """What a report tells.

    Args:
        title: the model and its version.
        spec_yaml: the resolved spec.
        history: one dict an epoch of the final training: `epoch`, `train_loss`, `val_loss`,
            `val_<metric>`, ...
        search: what the search left behind; None: there was none.
        profile: the reference statistics of the training rows.
        lineage: ids, digests and versions; a list is folded away.
        notes: what was decided about the data, one sentence each.
    """

    title: str
    spec_yaml: str
    evaluation: Evaluation
    verdicts: Sequence[Verdict]
    family: str = ""
    history: Sequence[Mapping[str, Any]] = ()
    search: SearchData | None = None
    profile: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(data: ReportData) -> str:
    """The page. Everything in it comes from `data`; nothing is fetched when it is opened."""
    evaluation = data.evaluation
    views = columns(data.profile)
    plain = {k: v for k, v in data.lineage.items() if not isinstance(v, (list, dict))}
    return environment().get_template("report.html.j2").render(
        data=data,
        evaluation=evaluation,
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        task=TASKS[evaluation.task],
        refused=[v for v in data.verdicts if not v.passed],
        summary=summary(evaluation),
        findings=findings(evaluation, data.family, any(v.kind == "image" for v in views)),
        rivals=charts.rivals(evaluation),
        table=metric_rows(evaluation),
        figures=figures(evaluation),
        learning=charts.learning(data.history, evaluation.metric),
        found=view(data.search) if data.search is not None and data.search.trials else None,
        columns=views,
        lineage={k: "–" if v is None else str(v) for k, v in plain.items()},
        folded={k: v for k, v in data.lineage.items() if isinstance(v, (list, dict)) and v},
        made=dt.datetime.now(dt.UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


@dataclass(frozen=True)
class MetricRow:
    """One line of the table: the model, then each rival with how it stands to the model."""

    name: str
    main: bool
    direction: str
    own: tuple[str, str]
    others: list[tuple[str, str, str]]  # value, difference, ahead | level | behind


def metric_rows(evaluation: Evaluation) -> list[MetricRow]:
    """The objective's metric first."""
    names = sorted(evaluation.metrics, key=lambda name: name != evaluation.metric)
    return [MetricRow(name, name == evaluation.metric, "↑" if maximised(name) else "↓",
                      _own(evaluation, name), list(_others(evaluation, name))) for name in names]


def _own(evaluation: Evaluation, name: str) -> tuple[str, str]:
    estimate = evaluation.metrics[name]
    return exact(estimate.value), f"{exact(estimate.low)} – {exact(estimate.high)}"


def _others(evaluation: Evaluation, name: str) -> Iterator[tuple[str, str, str]]:
    for rival in evaluation.rivals.values():
        if name not in rival.metrics or name not in rival.difference:
            yield "–", "", "level"
            continue
        gap = rival.difference[name]
        stands = "level" if not gap.clear else "behind" if rival.loses(name) else "ahead"
        gained = f"{exact(-gap.value, sign=True)}"
        yield exact(rival.metrics[name].value), gained, stands
