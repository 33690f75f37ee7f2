"""A finished search as plain data for the report, the terminal and MLflow."""

from __future__ import annotations

from typing import Any

from .advice import advise, levels, rungs
from .importance import importances
from .records import SearchResult
from .spec import TuningSpec
from .walk import flat


def rung_epochs(tuning: TuningSpec, epochs: int) -> list[int]:
    """The epochs at which the scheduler compares trials; none for one that has no rungs."""
    if tuning.pruning not in ("asha", "hyperband"):
        return []
    return levels(tuning.grace_epochs, tuning.reduction_factor, epochs)


def explain(found: SearchResult, tuning: TuningSpec, epochs: int) -> dict[str, Any]:
    """The fields of the report's `SearchData` that the search itself knows; JSON-serialisable."""
    shares = importances(found)
    space = {field: part.model_dump(mode="json", exclude_none=True)
             for _, field, part in flat(found.space)}
    return {
        "space": space,
        "importances": shares.shares, "below": shares.below, "note": shares.note,
        "advice": [line.to_dict() for line in advise(found, shares, epochs)],
        "rungs": rungs([trial.to_dict() for trial in found.trials], rung_epochs(tuning, epochs),
                       found.maximize),
        "rule": tuning.choose or ("knee" if len(tuning.objectives) > 1 else ""),
    }
