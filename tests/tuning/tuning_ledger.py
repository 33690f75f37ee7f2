"""Ledgers to test with, and a way to play a search without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from raymill.tuning.ledger import Ledger
from raymill.tuning.objectives import Objectives
from raymill.tuning.space import decode
from raymill.tuning.spec import Dimension, TuningSpec

FLAT = {"x": Dimension(low=0.0, high=1.0), "k": Dimension(low=1, high=9),
        "c": Dimension(choice=["a", "b", [1, 2]])}
BRANCHED = {
    "x": Dimension(low=0.0, high=1.0), "y": Dimension(low=1e-3, high=1.0, log=True),
    "model.family": Dimension.model_validate({"choice": {
        "one": {"z": {"low": 0.0, "high": 0.4}}, "two": {"z": {"low": 0.5, "high": 1.0}}}}),
}
Score = Callable[[Mapping[str, Any]], float]


def open_ledger(path: Path | None, tuning: TuningSpec, space: Mapping[str, Dimension] = FLAT,
                metric: str = "roc_auc", **arguments: Any) -> Ledger:
    """A ledger of a journal file, or of memory."""
    storage = (InMemoryStorage() if path is None
               else JournalStorage(JournalFileBackend(str(path))))
    return Ledger(storage, "search", Objectives.of(metric, tuning), tuning, space, **arguments)


def near(params: Mapping[str, Any]) -> float:
    """Best at x = 0.3; category a, or the branch two."""
    return -abs(params["x"] - 0.3) - 0.2 * (params.get("model.family", "two") == "one")


def play(ledger: Ledger, trials: int, score: Score = near,
         measures: Callable[[Mapping[str, Any]], dict[str, float]] = lambda params: {},
         ) -> list[dict[str, Any]]:
    """Run so many trials, one after the other; what was drawn."""
    drawn = []
    for _ in range(trials):
        assert ledger.ready()
        number, params = ledger.ask()
        drawn.append(params)
        if ledger.repeat(number) is None:
            fields = decode(ledger._space, params)
            ledger.epoch(number, 1, score(fields))
            ledger.end(number, "complete", "", measures(fields))
    return drawn
