"""The spec of the search."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from raymill.specs import Duration, Part, PlacedError
from raymill.training.objective import METRICS
from raymill.yamls import did_you_mean

from .goals import (
    MEASURES,
    Goal,
    Limit,
    Rule,
    as_goal,
    limit_text,
    parse_limit,
    parse_rule,
    rule_text,
)


def _scalar(text: str) -> Any:
    """The option that a key of a mapping names: `true`, `256` and `0.5` are no words."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if value is None or isinstance(value, bool | int | float) else text


def _form(value: Any) -> str:
    return "dict" if isinstance(value, dict) else "list"


def _number(value: Any) -> Any:
    """Neither `true` nor a number in quotes is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlacedError(f"it is a number, but got {value!r}",
                          cure="Write a number without quotes, or name the options in choice.")
    return value


Number = Annotated[int | float, BeforeValidator(_number)]
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
    """A list of options, or a mapping of options to what is searched below each."""
    low: Number | None = None
    """The least value."""
    high: Number | None = None
    """The greatest value."""
    log: bool = False
    """Drawn evenly in the logarithm."""
    step: Number | None = None
    """Only values that are so many steps above low."""

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
            raise PlacedError(f"low < high must hold, but got low={self.low}, high={self.high}",
                              cure="Swap them; what has one value only stands in the spec itself.")
        if self.log and self.low <= 0:
            raise PlacedError(f"log needs low > 0, but got low={self.low}",
                              cure="Raise low, or leave out log.")
        if self.log and self.step is not None:
            raise PlacedError("log and step can't be combined", cure="Leave one of them out.")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise PlacedError(f"0 < step <= high - low must hold, but got step={self.step}",
                              cure="Take smaller steps.")
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

    def holds(self, value: Any) -> bool:
        """Whether `value` is an option, or a number between the bounds."""
        if self.choice is not None:
            return label(value) in [label(option) for option in self.options]
        assert self.low is not None and self.high is not None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high

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


_PLAIN_STORAGES = ("journal", "sqlite")


def _storage_text(text: str) -> str:
    if text in _PLAIN_STORAGES:
        return text
    parts = urlsplit(text)
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise ValueError("tuning.storage is journal, sqlite or postgresql://user@host/database"
                         f"{did_you_mean(text, _PLAIN_STORAGES)}")
    if parts.password is not None or "password" in parts.query:
        raise ValueError("a password must not stand in a spec, which every run keeps: put it into "
                         "PGPASSWORD or ~/.pgpass and write postgresql://user@host/database")
    return text


class BudgetSpec(Part):
    """Where the search stops, whichever comes first; `tuning.trials` counts too."""

    wall: Duration | None = None
    """Time of the search, over all calls."""
    cpu_hours: Annotated[float, Field(gt=0)] | None = None
    """CPUs that trials hold, times hours."""
    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """GPUs that trials hold, times hours."""
    target: float | None = None
    """A value of the metric that is good enough."""
    plateau: Annotated[int, Field(ge=1)] | None = None
    """Finished trials without a better one."""


class TrialResources(Part):
    """What one trial holds."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that train one trial together."""
    cpu: Annotated[float, Field(gt=0)] = 1
    """CPUs of each worker."""
    gpu: Annotated[float, Field(ge=0)] | None = None
    """GPUs of each worker: one, or a share of one; null: one where there is any and training
    allows."""
    data_cpu: Annotated[float, Field(ge=0)] = 0
    """CPUs kept free of trials, for loops that use Ray Data themselves."""

    @model_validator(mode="after")
    def _a_gpu_a_worker(self) -> TrialResources:
        if self.gpu is not None and self.gpu > 1:
            raise PlacedError(f"a worker computes on one GPU, or on a share of one, but got "
                              f"{self.gpu:g}: for more of them a trial, raise workers", "gpu")
        return self


Sampler = Literal["tpe", "gp", "cmaes", "nsga2", "nsga3", "qmc", "random", "grid"]
Scheduler = Literal["auto", "asha", "hyperband", "median", "pbt", "none"]


class TuningSpec(Part):
    """How hyperparameters are searched."""

    trials: Annotated[int, Field(ge=0, le=100_000)] = 8
    """In all; 0 trains the spec's own values."""
    budget: BudgetSpec = BudgetSpec()
    """What ends the search early."""
    sampler: Sampler = "tpe"
    """Who draws the parameters."""
    scheduler: Scheduler = "auto"
    """Who stops trials that fall behind; auto: asha for one objective, none for several."""
    grace_epochs: Annotated[int, Field(ge=1)] = 3
    """Epochs before a trial may be stopped."""
    reduction_factor: Annotated[float, Field(gt=1)] = 3
    """One trial in so many goes on at each comparison of asha and hyperband."""
    population: Annotated[int, Field(ge=2)] | None = None
    """Of pbt; null: 4 to 16, by trials."""
    objectives: Annotated[
        list[Annotated[Goal, BeforeValidator(as_goal)]], Field(max_length=4)
    ] = Field(default_factory=list)
    """Up to four; empty: objective.metric."""
    constraints: list[Annotated[str, AfterValidator(limit_text)]] = Field(default_factory=list)
    """Like `p99_latency_ms <= 5`: who breaks one can't win."""
    choose: Annotated[str, AfterValidator(rule_text)] | None = None
    """Who wins of several objectives: knee, best:NAME or within:NAME:TOLERANCE; null: knee."""
    resources: TrialResources = TrialResources()
    """What one trial holds."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Trials at once; null: what the resources allow."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """How often a trial that lost its process, or hung, goes on."""
    storage: Annotated[str, AfterValidator(_storage_text)] = "journal"
    """Of Optuna's study: journal, sqlite or postgresql://user@host/database."""
    warm_start: str = "none"
    """none, previous, or the name of a study whose trials are brought in."""
    points: list[dict[str, Any]] = Field(default_factory=list)
    """Parameters that are tried first."""
    refit: Literal["scratch", "checkpoint", "none"] = "scratch"
    """How the winner is trained with all of training.workers: anew, or beginning with its own
    weights; none takes these as they are."""
    ensemble: Annotated[int, Field(ge=2, le=32)] | None = None
    """Average so many of the best trials, where that is better; null: no."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the sampler."""
    space: dict[str, Dimension] = Field(default_factory=dict)
    """What is searched, by dotted field; empty: the family's own."""

    @property
    def kept(self) -> int:
        """How many of the best trials must leave their weights behind."""
        return max(self.ensemble or 0, 0 if self.refit == "scratch" else 1)

    @property
    def pruning(self) -> str:
        """The scheduler that `auto` stands for, or the one that is named."""
        several = len(self.objectives) > 1
        return ("none" if several else "asha") if self.scheduler == "auto" else self.scheduler

    @property
    def limits(self) -> list[Limit]:
        return [parse_limit(text) for text in self.constraints]

    @property
    def rule(self) -> Rule:
        return parse_rule(self.choose or ("knee" if len(self.objectives) > 1 else "best"))

    @model_validator(mode="after")
    def _goals_fit(self) -> TuningSpec:
        names = [goal.metric for goal in self.objectives]
        if len(set(names)) < len(names):
            raise PlacedError(f"objectives must differ, but got {', '.join(names)}", "objectives")
        if names and names[0] not in METRICS:
            raise PlacedError("the first objective is a validation metric, which the epochs of a "
                              f"trial are judged by, but got {names[0]}", "objectives")
        if len(names) > 1 and self.pruning != "none":
            raise PlacedError(f"{self.scheduler} stops trials by one metric, so it can't be used "
                              "with several objectives: take none", "scheduler")
        if len(names) > 1 and self.sampler == "cmaes":
            raise PlacedError("cmaes knows one objective only: take tpe, gp, nsga2 or nsga3",
                              "sampler")
        if self.rule.name is not None and self.rule.name not in names:
            raise PlacedError(f"tuning.choose names one of the objectives ({', '.join(names)}), "
                              f"but got {self.rule.name}", "choose")
        if self.rule.kind != "best" and len(names) < 2:
            raise PlacedError(f"{self.choose} chooses among several objectives", "choose")
        return self

    @model_validator(mode="after")
    def _average_fits(self) -> TuningSpec:
        """An average costs what its members cost together, which no trial was measured for."""
        judged = [goal.metric for goal in self.objectives] + [limit.name for limit in self.limits]
        costs = [name for name in judged if name in MEASURES]
        if self.ensemble is not None and costs:
            raise PlacedError(f"an average of trials can't keep to {costs[0]}, which each of them "
                              "adds to: leave out ensemble, or that", "ensemble")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> TuningSpec:
        if self.population is not None and self.scheduler != "pbt":
            raise PlacedError("a population is pbt's: set scheduler to pbt", "population")
        if self.scheduler == "pbt" and self.trials and (self.population or 2) > self.trials:
            raise PlacedError(f"the population of pbt is part of tuning.trials ({self.trials}), "
                              f"but got {self.population}", "population")
        if self.scheduler == "pbt" and self.sampler in ("grid", "cmaes", "gp", "nsga2", "nsga3"):
            raise PlacedError("pbt draws its first generation only: take tpe, qmc or random",
                              "sampler")
        if self.scheduler == "pbt" and self.kept:
            raise PlacedError("pbt keeps the weights that its next generation begins with, not "
                              "those of the best: leave out ensemble, and set refit to scratch",
                              "ensemble" if self.ensemble else "refit")
        for index, point in enumerate(self.points):
            if not point:
                raise PlacedError("a point names at least one field", "points", index)
        return self
