"""How a rollout is to go. Without numpy: a command that only asks is there at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LADDER = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
Mode = Literal["canary", "ab", "shadow"]


@dataclass(frozen=True)
class Terms:
    """How a rollout is to go.

    Attributes:
        shares: the steps, each for `bake_s` at least and until the challenger has answered
            `least` requests. After a last step of 1.0 it is the champion; another last step stays.
        drift: how far the mean of an output may move, in standard deviations of the champion's.
    """

    mode: Mode
    shares: tuple[float, ...]
    bake_s: float = 300.0
    least: int = 100
    drift: float = 0.25

    @property
    def compared(self) -> int:
        """The steps that are tested by themselves; they share `rollout.ALPHA`."""
        return max(1, len(self.shares))


def ladder(first: float) -> tuple[float, ...]:
    """`first`, and every greater step of `LADDER`."""
    return (first, *(step for step in LADDER if step > first))
