"""What a search leaves behind."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from raymill.training.spec import ModelSpec, TrainingSpec

from .spec import Dimension

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial.

    `value` is its best epoch's metric (None when it failed), `values` the metric by epoch,
    `cause` why it failed or was cut short, `place` where and when it computed: `gpus` (Ray's ids),
    `device` (torch's), `began` and `ended` in epoch seconds; empty when it never got to report.
    `measures` are the validation metrics of that epoch and,
    for a whole trial, what was measured of its model. `origin` says where its parameters or its
    result come from, when no sampler drew them or nothing was trained.
    """

    number: int
    state: State
    value: float | None
    params: dict[str, Any]
    values: dict[int, float]
    seconds: float
    cause: str = ""
    place: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    origin: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SearchResult:
    """The winner, and every finished trial.

    `best_params` are dotted spec fields; `model` and `training` are the specs with them applied.
    `resumed` counts the trials that an earlier, cut-off call had finished. `ended_by` is the budget
    that ended the search, `study_path` the storage's file (of Postgres: the search's folder). Of several `objectives`, `front` has the numbers of the trials that none
    other beats on all of them.
    """

    best_params: dict[str, Any]
    best_value: float
    best_trial: int
    metric: str
    maximize: bool
    trials: list[TrialRecord]
    study_path: Path
    study_name: str
    resumed: int
    space: dict[str, Dimension]
    model: ModelSpec
    training: TrainingSpec
    ended_by: str = ""
    objectives: list[str] = field(default_factory=list)
    front: list[int] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {
            "trials": [trial.to_dict() for trial in self.trials],
            "study_path": str(self.study_path),
            "space": {path: part.model_dump(mode="json") for path, part in self.space.items()},
            "model": self.model.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
        }


_PLAIN = ("best_params", "best_value", "best_trial", "metric", "maximize", "study_name", "resumed",
          "ended_by", "objectives", "front")
