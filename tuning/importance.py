"""Which searched fields mattered, as data for the report."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from .records import SearchResult
from .space import encode, to_optuna

ENOUGH, FEWEST = 30, 6


@dataclass(frozen=True)
class Importances:
    """Shares that sum to 1, largest first; empty when there are too few trials to tell.

    `note` says how far the shares can be trusted; empty when they can.
    """

    shares: dict[str, float]
    trials: int
    method: str = "PED-ANOVA"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def importances(result: SearchResult) -> Importances:
    """How much each searched field decided whether a trial was among the best quarter.

    PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) compares where the best trials lie with
    where all lie. Pruned trials take part with their best value: they are what is not best.
    """
    distributions = to_optuna(result.space)
    trials = [t for t in result.trials if t.value is not None]
    counted = len(trials)
    if counted < FEWEST or not distributions:
        few = f"too few trials to tell what mattered: {counted}, at least {FEWEST} are needed"
        return Importances({}, counted, note=few)
    study = _study(result, distributions)
    evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's own word on few trials; ours is in the note
        shares = get_param_importances(study, evaluator=evaluator, params=list(distributions))
    ordered = dict(sorted(shares.items(), key=lambda item: -item[1]))
    hint = "" if counted >= ENOUGH else f"from {counted} trials only: a hint, not a finding"
    return Importances({name: float(share) for name, share in ordered.items()}, counted, note=hint)


def _study(result: SearchResult, distributions: dict[str, BaseDistribution]) -> optuna.Study:
    """The finished trials as a study in memory."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if result.maximize else "minimize")
    optuna.logging.set_verbosity(verbosity)
    for trial in result.trials:
        if trial.value is not None:
            params = encode(result.space, trial.params)
            study.add_trial(optuna.trial.create_trial(
                params=params, value=trial.value,
                distributions={name: distributions[name] for name in params},
            ))
    return study
