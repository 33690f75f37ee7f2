"""The study of a search, as people who know Optuna expect it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from raymill.errors import UsageError


class Study(optuna.Study):  # type: ignore[misc]
    """An `optuna.Study` for every read: trials, best_trial, trials_dataframe(), importances, plots.

    Parameters in the branch of an option are named `option/field`. Beside what Optuna has:

    Attributes:
        outcome: what the search found, in raymill's terms: fields of the spec, causes, measures,
            the Pareto front, what ended it; None while it runs.
    """

    outcome: Any

    def __init__(self, study_name: str, storage: BaseStorage) -> None:
        super().__init__(study_name=study_name, storage=storage)
        self.outcome = None
        self.stopped = False

    @classmethod
    def of(cls, outcome: Any, storage: BaseStorage) -> Study:
        """The study that a finished search leaves."""
        study = cls(outcome.study, storage)
        study.outcome = outcome
        return study

    @property
    def winner(self) -> FrozenTrial:
        """The trial that the search chose, by `tuning.choose` of several objectives."""
        return self.get_trials()[self.outcome.best_trial]

    def stop(self) -> None:
        """From a callback: end the search now; what runs is closed with its best epoch."""
        self.stopped = True

    def optimize(self, *args: Any, **kwargs: Any) -> None:
        """Not for this study: its trials are run by raymill."""
        raise UsageError("raymill runs the trials of this study itself",
                         cure="Call raymill.tune with more tuning.trials.")


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its notes on what it draws at random; ours are told before a search."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def open_study(storage: BaseStorage, name: str, maximize: list[bool]) -> Study:
    """The study of this name, made when there is none."""
    with quiet():
        optuna.create_study(
            storage=storage, study_name=name, load_if_exists=True,
            directions=["maximize" if up else "minimize" for up in maximize],
        )
        return Study(name, storage)
