"""What an evaluation found: estimates with their intervals, the model's and its rivals'."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raymill.training.objective import METRICS

COST = "cost"  # mean cost per row at the threshold, in the spec's unit; less is better


def maximised(metric: str) -> bool:
    """Whether more of `metric` is better; costs, latencies and sizes are better small."""
    return metric in METRICS and METRICS[metric].maximize


@dataclass(frozen=True)
class Estimate:
    """A value on the test rows and its percentile interval; NaN where it can't be told."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """For a difference: whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Rival:
    """A baseline or the champion, on the same test rows as the model.

    `difference` is the model's value less the rival's, resampled in pairs. `fitted_on` and
    `seconds` are 0 for a champion, which is not fitted here; `note` tells every cap.
    """

    name: str
    metrics: dict[str, Estimate]
    difference: dict[str, Estimate]
    fitted_on: int = 0
    seconds: float = 0.0
    note: str = ""

    def loses(self, metric: str) -> bool:
        """Whether the model's own value is strictly better than this rival's."""
        gap = self.difference[metric].value
        return gap > 0 if maximised(metric) else gap < 0


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one model on its test rows.

    `curves` holds JSON arrays for the charts (see curves.py); `footprint` is the latency
    of one row in ms and the size in MB; `skipped` names each rival that could not be compared,
    and why.
    """

    task: str
    metric: str
    classes: list[str] | None
    rows: int
    threshold: dict[str, Any] | None
    metrics: dict[str, Estimate]
    rivals: dict[str, Rival]
    curves: dict[str, Any]
    footprint: dict[str, float]
    confidence: float
    resamples: int
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def headline(self) -> Estimate:
        return self.metrics[self.metric]

    def measure(self, name: str) -> float:
        """The value of a metric, a latency or a size."""
        return self.metrics[name].value if name in self.metrics else self.footprint[name]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Evaluation:
        rivals = {
            name: Rival(
                **{
                    **rival,
                    "metrics": _estimates(rival["metrics"]),
                    "difference": _estimates(rival["difference"]),
                }
            )
            for name, rival in state["rivals"].items()
        }
        return cls(**{**state, "metrics": _estimates(state["metrics"]), "rivals": rivals})

    def save(self, path: Path) -> None:
        """Write as JSON; Python's reader takes the NaN of an interval that can't be told."""
        path.write_text(json.dumps(self.to_dict(), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _estimates(state: dict[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate(**estimate) for name, estimate in state.items()}
