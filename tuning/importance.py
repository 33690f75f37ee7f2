"""Which searched fields mattered, as data for the report."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from .records import SearchResult, TrialRecord
from .space import encode, to_optuna
from .walk import flat

ENOUGH, FEWEST = 30, 6
_SEED = 0  # the trees of fANOVA are drawn: equal searches give equal shares


@dataclass(frozen=True)
class Importances:
    """Shares that sum to 1, largest first; empty when there are too few trials to tell.

    `shares` are of the fields that every trial has; `below` those of the fields of one branch,
    among its own trials, by the branch's options (`mlp`, `mlp/periodic`). `note` says how far they can be trusted; empty when
    they can.
    """

    shares: dict[str, float]
    trials: int
    below: dict[str, dict[str, float]] = field(default_factory=dict)
    method: str = "fANOVA"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def importances(result: SearchResult) -> Importances:
    """How much of the values' variance each searched field accounts for, the others averaged out.

    fANOVA (Hutter et al. 2014) over a random forest. Pruned trials take part with their best value.
    """
    known = [trial for trial in result.trials if trial.value is not None]
    if len(known) < FEWEST:
        return Importances({}, len(known), note="too few trials to tell what mattered: "
                           f"{len(known)}, at least {FEWEST} are needed")
    drawn = [(trial, encode(result.space, trial.params)) for trial in known]
    groups = _groups(result)
    shares = _shares(drawn, groups.pop(""), result)
    below = {name: _shares(drawn, fields, result) for name, fields in groups.items()}
    hint = "" if len(known) >= ENOUGH else f"from {len(known)} trials only: a hint, not a finding"
    return Importances(shares, len(known), {n: s for n, s in below.items() if s}, note=hint)


def _groups(result: SearchResult) -> dict[str, dict[str, str]]:
    """Optuna's name and the field of what is searched in every trial (""), and in each branch."""
    groups: dict[str, dict[str, str]] = {"": {}}
    for name, path, _ in flat(result.space):
        branch = name[: -len(path)].rstrip("/")
        groups.setdefault(branch, {})[name] = path
    return groups


def _shares(
    drawn: Sequence[tuple[TrialRecord, dict[str, Any]]], fields: dict[str, str],
    result: SearchResult,
) -> dict[str, float]:
    """Of `fields`, among the trials that drew them all; empty when those are too few."""
    distributions = {name: each for name, each in to_optuna(result.space).items() if name in fields}
    having = [(trial, {name: params[name] for name in fields}) for trial, params in drawn
              if fields.keys() <= params.keys()]
    values = {trial.value for trial, _ in having}
    if len(having) < FEWEST or len(values) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator  # with scikit-learn, slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's own word on few trials; ours is in the note
        shares = FanovaImportanceEvaluator(seed=_SEED).evaluate(
            _study(having, distributions, result.maximize))
    total = sum(shares.values()) or 1.0
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return {fields[name]: float(share) / total for name, share in ordered}


def _study(
    having: Sequence[tuple[TrialRecord, dict[str, Any]]],
    distributions: dict[str, BaseDistribution], maximize: bool,
) -> optuna.Study:
    """The trials as a study in memory."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    optuna.logging.set_verbosity(verbosity)
    study.add_trials([
        optuna.trial.create_trial(params=params, value=trial.value, distributions=distributions)
        for trial, params in having
    ])
    return study
