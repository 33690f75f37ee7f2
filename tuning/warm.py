"""Warm start: what earlier studies found is known, or at least tried first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import ValidationError

from raymill.errors import RaymillError, UsageError
from raymill.events import Notify, note
from raymill.training.job import make_job

from .ledger import Ledger
from .objectives import Objectives
from .space import complete, decode, encode, own_values, to_optuna
from .spec import Dimension, TuningSpec
from .storage import SQLITE, storage_in
from .walk import with_params

if TYPE_CHECKING:
    from .search import What

TRIED_FIRST = 5  # of the best points of a study whose values don't hold here
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


def take_over(ledger: Ledger, tuning: TuningSpec, what: What, context: str, name: str, out: Path,
              notify: Notify) -> None:
    """Mark a new study for later ones, and take over what `tuning.warm_start` asks for.

    Trials of a study of the same data, job and code are results here too, as far as they lie in the
    space. Of another study the best points are tried first.

    Raises:
        UsageError: there is no study of the name asked for.
    """
    study = ledger.study
    if tuning.warm_start != "none":
        found = _find(tuning, study.study_name, name, out)
        if found is None:
            note(notify, f"no earlier study of {name or 'this spec'}: the search starts cold")
        elif found.user_attrs.get("context") == context:
            known = list(_known(found, what, ledger.objectives))
            ledger.add_warm(known)
            note(notify, f"{len(known)} trials are known from {found.study_name}")
        else:
            best = _best(found, what)
            for params, origin in best:
                study.enqueue_trial(params, user_attrs={"origin": origin})
            note(notify, f"{found.study_name} searched other data, or another job: "
                         f"its best {len(best)} points are tried first")
    study.set_user_attr("space", {p: d.model_dump(mode="json") for p, d in what.space.items()})
    for attribute, value in (("spec", name), ("context", context), ("made", time.time())):
        study.set_user_attr(attribute, value)


def _find(tuning: TuningSpec, own: str, name: str, out: Path) -> optuna.Study | None:
    """The newest earlier study of this spec's name, or the one that is named."""
    studies = [study for storage in _storages(tuning, out) for study in _studies(storage)
               if study.study_name != own and "space" in study.user_attrs]
    if tuning.warm_start == "previous":
        same = [study for study in studies if study.user_attrs.get("spec") == name]
        return max(same, key=lambda study: study.user_attrs["made"], default=None)
    for study in studies:
        if study.study_name == tuning.warm_start:
            return study
    names = ", ".join(sorted(study.study_name for study in studies)) or "there are none yet"
    raise UsageError(f"tuning.warm_start is previous, none or a study ({names}), but got "
                     f"{tuning.warm_start!r}")


def _storages(tuning: TuningSpec, out: Path) -> Iterator[BaseStorage]:
    for path in sorted(out.parent.glob("*/study.*")):
        if path.suffix in (".journal", ".db"):
            yield storage_in(path.parent, "sqlite" if path.name == SQLITE else "journal")
    if tuning.storage not in ("journal", "sqlite"):
        yield storage_in(out, tuning.storage)


def _studies(storage: BaseStorage) -> Iterator[optuna.Study]:
    for frozen in storage.get_all_studies():
        yield optuna.Study(frozen.study_name, storage)


def _params(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    """A trial's fields of the spec."""
    space = {path: Dimension.model_validate({k: v for k, v in said.items() if v is not None})
             for path, said in study.user_attrs["space"].items()}
    return decode(space, trial.params)


def _known(study: optuna.Study, what: What, objectives: Objectives) -> Iterator[FrozenTrial]:
    distributions = to_optuna(what.space)
    for trial in study.get_trials(deepcopy=False, states=_ENDED):
        attributes = trial.user_attrs
        if {"cause", "repeat_of", "segment"} & attributes.keys():
            continue
        measures = attributes.get("measures", {})
        inside = _inside(what, _params(study, trial))
        whole = trial.state is TrialState.COMPLETE
        if inside is None or (whole and not measures.keys() >= objectives.measured):
            continue
        origin = attributes.get("warm", f"{study.study_name}, trial {trial.number}")
        known = measures.keys() >= {limit.name for limit in objectives.limits}
        yield create_trial(
            state=trial.state, params=inside,
            distributions={name: distributions[name] for name in inside},
            values=objectives.values(measures) if whole else None,
            intermediate_values=trial.intermediate_values,
            user_attrs={"warm": origin, "origin": origin, "measures": measures},
            constraints=objectives.excesses(measures) if known else None,
        )


def _inside(what: What, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters by which this search makes the very job that `params` made; None: there are
    none."""
    concrete = what.model.model_copy(update={"family": what.base.family})
    try:
        model, training = with_params(concrete, what.training, params)
        theirs = make_job(model, training, what.base.metric, what.base.schema, what.project)
        inside = own_values(model, training, theirs.family, what.space)
        ours = what.job(inside)
    except (ValidationError, RaymillError):
        return None
    same = _plain(theirs.with_training(**_execution(ours.training))) == _plain(ours)
    return inside if same and complete(what.space, inside) else None


def _execution(training: Any) -> dict[str, Any]:
    return {name: getattr(training, name) for name in ("workers", "cpus_per_worker", "max_failures")}


def _plain(job: Any) -> str:
    return json.dumps(job.to_dict(), sort_keys=True)


def _best(study: optuna.Study, what: What) -> list[tuple[dict[str, Any], str]]:
    """The best points of a study that lie in this space at least in part."""
    maximize = study.directions[0] is optuna.study.StudyDirection.MAXIMIZE
    ended = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
             if "repeat_of" not in t.user_attrs]
    ended.sort(key=lambda trial: trial.values[0], reverse=maximize)
    found: list[tuple[dict[str, Any], str]] = []
    for trial in ended:
        inside = encode(what.space, _params(study, trial))
        if inside and inside not in [params for params, _ in found]:
            found.append((inside, f"{study.study_name}, trial {trial.number}"))
    return found[:TRIED_FIRST]
