"""The language of gates: `metric >= x`, `beats: baseline | constant | linear | boosting |
champion`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from raymill.training.objective import METRICS

RIVALS = ("baseline", "constant", "linear", "boosting", "champion")
LATENCIES = ("p50_latency_ms", "p99_latency_ms")  # of one row through the predictor
SIZES = ("model_mb",)
_BOUND = re.compile(r"(\w+)\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
_BEATS = re.compile(r"beats:\s*(\w+)")


@dataclass(frozen=True)
class Bound:
    """`measure` (a metric, a latency in ms or a size in MB) against a number."""

    measure: str
    sign: Literal[">=", "<=", ">", "<"]
    limit: float
    text: str


@dataclass(frozen=True)
class Beats:
    """The model must be better than `rival` on the objective's metric."""

    rival: str
    text: str


Gate = Bound | Beats


def parse_gate(text: str) -> Gate:
    """Read one gate.

    Raises:
        ValueError: not a gate, or one that names an unknown measure or rival.
    """
    if beats := _BEATS.fullmatch(text.strip()):
        if beats[1] not in RIVALS:
            raise ValueError(f"beats: takes {', '.join(RIVALS)}, but got {beats[1]!r}")
        return Beats(beats[1], text)
    bound = _BOUND.fullmatch(text.strip())
    if bound is None:
        raise ValueError(f"a gate is 'metric >= number' or 'beats: rival', but got {text!r}")
    measures = (*METRICS, *LATENCIES, *SIZES)
    if bound[1] not in measures:
        raise ValueError(f"a gate measures {', '.join(measures)}, but got {bound[1]!r}")
    return Bound(bound[1], bound[2], float(bound[3]), text)  # type: ignore[arg-type]
