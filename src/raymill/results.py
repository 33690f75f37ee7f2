"""What the verbs give back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymill.evaluation.gates import Verdict
    from raymill.evaluation.results import Evaluation
    from raymill.training.bundle import Bundle


@dataclass(frozen=True)
class SearchOutcome:
    """The best parameters found (dotted spec fields), their value, and every trial.

    `model` and `training` are the spec's parts with the best parameters in them; None: no search.
    Of several `objectives`, `front` has the numbers of the trials that none other beats on all of
    them. `ended_by` is the budget that ended the search; the study named `study` lies in `folder`.
    `explained` is what `tuning.explain` made of it, with `advice` in words.
    """

    metric: str
    best_params: dict[str, Any] = field(default_factory=dict)
    best_value: float | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    explained: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    objectives: list[str] = field(default_factory=list)
    front: list[int] = field(default_factory=list)
    ended_by: str = ""
    study: str = ""
    best_trial: int | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class TrainOutcome:
    """The trained bundle, its validation metrics, every epoch, and where the training was taken
    up again (`{epoch, steps, exact}`; `exact` is `bitwise` or `samples`)."""

    bundle: Path
    digest: str
    family: str
    params: dict[str, Any]
    metrics: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    resumes: list[dict[str, Any]] = field(default_factory=list)

    def open(self) -> Bundle:
        """The bundle, every file verified."""
        from raymill.training.bundle import Bundle

        return Bundle.open(self.bundle, self.digest)


@dataclass(frozen=True)
class RunResult:
    """The whole of a run."""

    run_id: str
    name: str
    metric: str
    search: SearchOutcome
    trained: TrainOutcome
    evaluation: Evaluation
    verdicts: list[Verdict]
    version: int
    champion: bool
    report: Path
    data: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether every gate let the model through."""
        return all(verdict.passed for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        evaluation = self.evaluation
        return {
            "ok": self.passed,
            "run": self.run_id,
            "name": self.name,
            "version": self.version,
            "alias": "champion" if self.champion else "challenger",
            "metric": self.metric,
            "data": self.data,
            "best_params": self.search.best_params,
            "trials": self.search.trials,
            "validation": self.trained.metrics,
            "resumes": self.trained.resumes,
            "test": {
                name: {"value": e.value, "low": e.low, "high": e.high}
                for name, e in evaluation.metrics.items()
            },
            "baselines": {
                name: {m: e.value for m, e in rival.metrics.items()}
                for name, rival in evaluation.rivals.items()
            },
            "gates": [
                {"gate": v.gate, "passed": v.passed, "why": v.why} for v in self.verdicts
            ],
            "bundle": str(self.trained.bundle),
            "digest": self.trained.digest,
            "report": str(self.report),
        }
