"""A searched field as an axis from 0 to 1: numbers by their range, choices by their place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .svg import number, ticks

ROOM = 0.04  # of a scale of numbers at each end, so that marks at a bound are whole


@dataclass(frozen=True)
class Axis:
    """`name`, and either `options` or `low`..`high`: by their logarithm where `log` says so, of
    `whole` numbers only."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    options: tuple[Any, ...] = ()
    whole: bool = False

    def at(self, value: Any) -> float | None:
        """Where a value lies; None for one that is not on the axis."""
        if self.options:
            if value not in self.options:
                return None
            return (self.options.index(value) + 0.5) / len(self.options)
        if not isinstance(value, int | float) or (self.log and value <= 0):
            return None
        low, high = self._scale(self.low), self._scale(self.high)
        share = (self._scale(float(value)) - low) / (high - low or 1)
        return ROOM + (1 - 2 * ROOM) * share

    def marks(self, about: int = 4) -> list[tuple[float, str]]:
        """Where labels stand, and what they say."""
        if self.options:
            return [((place + 0.5) / len(self.options), text_of(option))
                    for place, option in enumerate(self.options)]
        values = _decades(self.low, self.high) if self.log else ticks(self.low, self.high, about)
        values = [value for value in values if not self.whole or value == int(value)]
        found = [(self.at(value), number(value)) for value in values]
        return [(place, text) for place, text in found if place is not None]

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value


def axes_of(
    trials: Sequence[Mapping[str, Any]], space: Mapping[str, Mapping[str, Any]]
) -> list[Axis]:
    """An axis for every field that took more than one value, as the space says or as it was drawn.

    A field that stands in several branches has the union of what was drawn.
    """
    drawn: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.get("params", {}).items():
            drawn.setdefault(name, []).append(value)
    made = [_axis(name, values, space.get(name, {})) for name, values in drawn.items()]
    return [axis for axis in made if axis is not None]


def _axis(name: str, values: Sequence[Any], said: Mapping[str, Any]) -> Axis | None:
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if said.get("choice") is not None or len(numbers) < len(values):
        seen = sorted({json.dumps(value, sort_keys=True) for value in values})
        options = [o for o in said.get("choice") or map(json.loads, seen) if o in values]
        return Axis(name, options=tuple(options)) if len(options) > 1 else None
    if min(numbers) == max(numbers):
        return None
    low = min([float(said["low"])] if "low" in said else numbers)
    high = max([float(said["high"])] if "high" in said else numbers)
    whole = all(isinstance(value, int) for value in values)
    return Axis(name, min(low, *numbers), max(high, *numbers), bool(said.get("log", False)),
                whole=whole)


def text_of(value: Any, most: int = 14) -> str:
    """A drawn value as a label."""
    if isinstance(value, float):
        return number(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten within the range, with 2 and 5 where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = [10.0**k for k in range(first, last + 1)]
    inside = [p for p in powers if low * 0.999 <= p <= high * 1.001]
    if len(inside) >= 3:
        return inside
    finer = [p * m for p in powers for m in (1, 2, 5) if low * 0.999 <= p * m <= high * 1.001]
    return finer if len(finer) >= 2 else [low, high]
