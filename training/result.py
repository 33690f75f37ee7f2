"""What a training run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class FitResult:
    """What a training run came to.

    Attributes:
        best: the metrics of the best epoch. history: those of every epoch.
        checkpoint: of the best epoch; None where the session keeps none.
        resumes: where the run was taken up again, as `{epoch, steps, exact}`; `exact` is `bitwise`
            (as if never interrupted) or `samples` (every row once an epoch).
        offset: what the model's output is corrected by (see `balance`); empty: nothing.
        weights: of the best epoch, where the session keeps no checkpoints.
        regrown: the model that was trained last, on all rows; None: the best epoch's is the last.
    """

    best: dict[str, float]
    best_epoch: int
    epochs: int
    history: list[dict[str, float]]
    checkpoint: Path | None
    resumes: list[dict[str, Any]] = field(default_factory=list)
    offset: tuple[float, ...] = ()
    weights: dict[str, Tensor] = field(default_factory=dict, repr=False)
    regrown: FitResult | None = None


def as_dict(result: FitResult) -> dict[str, Any]:
    """`result` as JSON-serialisable data, without the weights."""
    checkpoint = str(result.checkpoint) if result.checkpoint else None
    return {"best": result.best, "best_epoch": result.best_epoch, "epochs": result.epochs,
            "history": result.history, "checkpoint": checkpoint, "resumes": result.resumes,
            "offset": list(result.offset),
            "regrown": None if result.regrown is None else as_dict(result.regrown)}


def from_dict(state: Mapping[str, Any]) -> FitResult:
    """What `as_dict` gave."""
    path, regrown = state["checkpoint"], state["regrown"]
    return FitResult(**{**state, "checkpoint": Path(path) if path else None,
                        "offset": tuple(state["offset"]),
                        "regrown": None if regrown is None else from_dict(regrown)})
