"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from .spec import TrainingSpec


def learning_rate(spec: TrainingSpec, step: int, steps: int) -> float:
    """The learning rate of step `step` of `steps`: a linear warm-up, then the schedule
    (`cosine` falls to 0)."""
    warm = max(1, round(spec.warmup * steps)) if spec.warmup > 0 else 0
    if step < warm:
        return spec.lr * (step + 1) / warm
    if spec.schedule == "constant":
        return spec.lr
    share = (step - warm) / max(1, steps - warm)
    return spec.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
