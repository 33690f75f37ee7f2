"""The spec of the search."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raymill.specs import Duration, Part


class Dimension(Part):
    """One searched field: `choice`, or `low` and `high` with `log` or `step`.

    Bounds that are both whole numbers make a whole-number dimension.
    """

    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _well_formed(self) -> Dimension:
        if self.choice is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("a dimension has either choice, or low and high, not both")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a dimension needs choice, or both low and high")
        if self.low >= self.high:
            raise ValueError(f"low < high must hold, but got low={self.low}, high={self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low > 0, but got low={self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step can't be combined")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"0 < step <= high - low must hold, but got step={self.step}")
        return self

    @property
    def integer(self) -> bool:
        return (
            isinstance(self.low, int) and isinstance(self.high, int)
            and (self.step is None or isinstance(self.step, int))
        )


class BudgetSpec(Part):
    """Where the search stops, whichever comes first; `tuning.trials` counts too."""

    wall: Duration | None = None


class TrialResources(Part):
    """What one trial holds. `gpu` left out: one where the cluster has any and training allows."""

    cpu: Annotated[float, Field(gt=0)] = 1
    gpu: Annotated[float, Field(ge=0)] | None = None


class TuningSpec(Part):
    """How hyperparameters are searched; `trials: 0` trains the spec's own values."""

    trials: Annotated[int, Field(ge=0, le=100_000)] = 8
    budget: BudgetSpec = BudgetSpec()
    sampler: Literal["tpe", "random"] = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    grace_epochs: Annotated[int, Field(ge=1)] = 3
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    resources: TrialResources = TrialResources()
    concurrency: Annotated[int, Field(ge=1)] | None = None  # None: what the resources allow
    max_failures: Annotated[int, Field(ge=0)] = 1
    seed: Annotated[int, Field(ge=0)] = 0
    space: dict[str, Dimension] = Field(default_factory=dict)  # empty: the family's own
