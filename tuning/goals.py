"""What a search is judged by: objectives, constraints, and the rule that chooses one trial."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from raymill.specs import Part
from raymill.training.objective import METRICS
from raymill.yamls import did_you_mean

MEASURES = ("p50_latency_ms", "p99_latency_ms", "model_mb", "train_seconds")
_BOUND = re.compile(r"(\w+)\s*(<=|>=)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_CHOOSE = re.compile(r"(best|knee)|best:(\w+)|within:(\w+):(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(%?)")

Name = Annotated[str, AfterValidator(lambda name: _measured(name))]


def _measured(name: str) -> str:
    known = [*METRICS, *MEASURES]
    if name not in known:
        raise ValueError(f"a search measures {', '.join(known)}, but got {name!r}"
                         f"{did_you_mean(name, known)}")
    return name


def maximized(name: str) -> bool:
    """Whether more of a metric or a measure is better."""
    return name in METRICS and METRICS[name].maximize


class Goal(Part):
    """One objective: a validation metric, or what is measured of a trial's model."""

    metric: Name
    """A validation metric, p50_latency_ms, p99_latency_ms, model_mb or train_seconds."""
    direction: Literal["maximize", "minimize"] | None = None
    """null: the metric's own."""

    @model_validator(mode="after")
    def _its_own_direction(self) -> Goal:
        own = "maximize" if maximized(self.metric) else "minimize"
        if self.direction not in (None, own):
            raise ValueError(f"{self.metric} is better when you {own} it, but got {self.direction}")
        return self


def as_goal(value: Any) -> Any:
    return {"metric": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Limit:
    """A constraint: `name` is at most (`upper`) or at least `limit`."""

    name: str
    upper: bool
    limit: float

    @property
    def text(self) -> str:
        return f"{self.name} {'<=' if self.upper else '>='} {self.limit:g}"

    def excess(self, value: float) -> float:
        """How far `value` breaks the constraint; at most 0: it holds."""
        return value - self.limit if self.upper else self.limit - value


def parse_limit(text: str) -> Limit:
    """Read `p99_latency_ms <= 5`.

    Raises:
        ValueError: it is none, or it names nothing that a search measures.
    """
    found = _BOUND.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"a constraint is 'measure <= number' or 'metric >= number', but got {text!r}")
    return Limit(_measured(found[1]), found[2] == "<=", float(found[3]))


def limit_text(text: str) -> str:
    parse_limit(text)
    return text


@dataclass(frozen=True)
class Rule:
    """How one trial of a Pareto front is chosen: see `raymill.tuning.objectives.choose`."""

    kind: Literal["best", "knee", "within"]
    name: str | None = None
    tolerance: float = 0.0
    relative: bool = False


def parse_rule(text: str) -> Rule:
    """Read `best`, `knee`, `best:METRIC` or `within:METRIC:TOLERANCE`.

    Raises:
        ValueError: it is none of them.
    """
    found = _CHOOSE.fullmatch(text.strip())
    if found is None:
        raise ValueError("tuning.choose is knee, best, best:METRIC or within:METRIC:TOLERANCE "
                         f"(0.01 or 1%), but got {text!r}")
    if found[1]:
        return Rule(found[1])  # type: ignore[arg-type]
    if found[2]:
        return Rule("best", _measured(found[2]))
    tolerance = float(found[4]) / (100 if found[5] else 1)
    return Rule("within", _measured(found[3]), tolerance, bool(found[5]))


def rule_text(text: str) -> str:
    parse_rule(text)
    return text
