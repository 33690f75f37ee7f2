"""The spec of the objective: what is optimised, where the cut lies, what a model must reach."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raymill.specs import Part
from raymill.training.objective import METRICS

from .rules import parse_gate

Baseline = Literal["constant", "linear", "boosting"]
BASELINES: tuple[Baseline, ...] = ("constant", "linear", "boosting")


class CostSpec(Part):
    """What a wrong answer costs, in the user's unit, per row."""

    false_positive: Annotated[float, Field(ge=0)]
    """Of a yes that should be a no."""
    false_negative: Annotated[float, Field(ge=0)]
    """Of a no that should be a yes."""

    @model_validator(mode="after")
    def _something_costs(self) -> CostSpec:
        if self.false_positive + self.false_negative == 0:
            raise ValueError("one of false_positive and false_negative must be > 0, but both are 0")
        return self


class ThresholdSpec(Part):
    """Where a binary model's probability becomes a yes: a fixed cut, the one that costs least on
    validation, or the one with the best F1 or accuracy there."""

    cost: CostSpec | None = None
    """The cut that costs least on validation."""
    fixed: Annotated[float, Field(gt=0, lt=1)] | None = None
    """This cut."""
    best: Literal["f1", "accuracy", "balanced_accuracy"] | None = None
    """The cut with the best value of this metric on validation."""

    @model_validator(mode="after")
    def _one_rule(self) -> ThresholdSpec:
        if sum(rule is not None for rule in (self.cost, self.fixed, self.best)) > 1:
            raise ValueError("a threshold has one of cost, fixed and best, not several")
        return self


class ObjectiveSpec(Part):
    """`metric` is what the search improves (None: roc_auc, accuracy or rmse by task)."""

    metric: str | None = None
    """What search, early stopping and `beats` gates go by."""
    threshold: ThresholdSpec = ThresholdSpec()
    """Where a probability becomes a yes (0.5 if nothing is said)."""
    positive: str | None = None
    """The class a binary model finds; null: the rarer one."""
    gates: list[str] = Field(default_factory=lambda: ["beats: baseline"])
    """What a model must pass to become champion: `metric >= x`, `beats: RIVAL`."""
    baselines: list[Baseline] = Field(default_factory=lambda: list(BASELINES))
    """Simple models that are measured beside it on the same test rows."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the intervals in the report."""
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamples of the test rows for them."""

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str | None) -> str | None:
        if metric is not None and metric not in METRICS:
            raise ValueError(f"a metric is one of {', '.join(METRICS)}, but got {metric!r}")
        return metric

    @field_validator("gates")
    @classmethod
    def _readable_gates(cls, gates: list[str]) -> list[str]:
        for gate in gates:
            parse_gate(gate)
        return gates
