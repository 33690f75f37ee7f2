"""The learning rate as a function of the step, and of how the validation goes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .spec import TrainingSpec

FIRST, LAST = 1 / 25, 1e-4 / 25  # of one-cycle, as shares of the highest rate
PLATEAU_EPOCHS, PLATEAU_FACTOR = 3, 0.3


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps`: a linear warm-up, then the schedule.

    `linear` and `cosine` fall to 0. `one_cycle` rises and falls as a cosine, from a 25th to a
    250,000th of `lr` (Smith and Topin 2018; its momentum stays as it is). `plateau` is constant
    here; `plateau_share` lowers it.
    """
    warm = max(1, round(spec.warmup * steps)) if spec.warmup > 0 else 0
    if step < warm:
        done = (step + 1) / warm
        return spec.lr * (_between(FIRST, 1.0, done) if spec.schedule == "one_cycle" else done)
    share = min(1.0, (step - warm) / max(1, steps - warm))
    if spec.schedule == "cosine":
        return spec.lr * _between(1.0, 0.0, share)
    if spec.schedule == "linear":
        return spec.lr * (1 - share)
    if spec.schedule == "one_cycle":
        return spec.lr * _between(1.0, LAST, share)
    return spec.lr


def _between(low: float, high: float, share: float) -> float:
    """From `low` to `high` along half a cosine."""
    return high + (low - high) * 0.5 * (1 + math.cos(math.pi * share))


def plateau_share(spec: TrainingSpec, values: Sequence[float], maximize: bool) -> float:
    """What `plateau` leaves of the rate after epochs of these validation values: 0.3 of it each
    time that 3 epochs in a row brought nothing better. 1 for every other schedule."""
    if spec.schedule != "plateau":
        return 1.0
    share, best, stale = 1.0, -math.inf, 0
    for value in values:
        reached = value if maximize else -value
        stale = 0 if reached > best else stale + 1
        best = max(best, reached)
        if stale == PLATEAU_EPOCHS:
            share, stale = share * PLATEAU_FACTOR, 0
    return share
