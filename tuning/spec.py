"""The spec of the search."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from raymill.specs import Duration, Part


def _scalar(text: str) -> Any:
    """The option that a key of a mapping names: `true`, `256` and `0.5` are no words."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, bool | int | float) else text


def _form(value: Any) -> str:
    return "dict" if isinstance(value, dict) else "list"


Options = Annotated[list[Any], Field(min_length=1)]
Branches = Annotated[dict[str, dict[str, "Dimension"]], Field(min_length=1)]


class Dimension(Part):
    """One searched field: `choice`, or `low` and `high` with `log` or `step`.

    Bounds that are both whole numbers make a whole-number dimension of a field that is not known
    to take others. A choice that is a mapping has options (its keys) with a space of their own:
    what is searched only when that option is drawn.
    """

    choice: Annotated[
        Annotated[Options, Tag("list")] | Annotated[Branches, Tag("dict")], Discriminator(_form)
    ] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _well_formed(self) -> Dimension:
        if self.choice is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("a dimension has either choice, or low and high, not both")
            _check_options(self.options)
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

    @property
    def options(self) -> list[Any]:
        """The values of a choice."""
        if isinstance(self.choice, dict):
            return [_scalar(key) for key in self.choice]
        return list(self.choice or ())

    @property
    def branches(self) -> dict[str, dict[str, Dimension]]:
        """The space below each option, by its key; empty for a choice that is a list."""
        return self.choice if isinstance(self.choice, dict) else {}

    def branch(self, drawn: Any) -> tuple[str, dict[str, Dimension]]:
        """The key of the option that `drawn` labels, and the space below it."""
        for key, below in self.branches.items():
            if label(_scalar(key)) == drawn:
                return key, below
        return "", {}


def label(value: Any) -> Any:
    """How an option is drawn and stored: itself, or as JSON when it is no scalar."""
    scalar = value is None or isinstance(value, bool | int | float | str)
    return value if scalar else json.dumps(value, sort_keys=True)


def _check_options(options: list[Any]) -> None:
    seen: list[Any] = []
    for option in options:
        try:
            json.dumps(option, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"an option is a value of YAML, but got {option!r}") from None
        if label(option) in seen:
            raise ValueError(f"options must differ, but got {option!r} twice (true is 1)")
        seen.append(label(option))


class BudgetSpec(Part):
    """Where the search stops, whichever comes first; `tuning.trials` counts too."""

    wall: Duration | None = None


class TrialResources(Part):
    """What one trial holds.

    `cpu` and `gpu` are of each of its `workers`; `gpu` left out: one where the cluster has any and
    training allows. `data_cpu` is kept free of trials, for loops that use Ray Data themselves.
    """

    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    cpu: Annotated[float, Field(gt=0)] = 1
    gpu: Annotated[float, Field(ge=0)] | None = None
    data_cpu: Annotated[float, Field(ge=0)] = 0


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
