"""From a search to the model: the winner refitted as the spec says, alone or averaged with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from raymill.data.prepare import Prepared
from raymill.errors import Problem, UsageError
from raymill.events import note, warn
from raymill.training.auto import AUTO
from raymill.training.bundle import write as write_bundle
from raymill.training.checkpoint import load_weights, newest_good, read_progress
from raymill.training.distributed import train as train_distributed
from raymill.training.factories import allowed
from raymill.training.families.base import fitter
from raymill.training.families.ensemble import ENSEMBLE, params_of, weights_of
from raymill.training.job import TrainJob, make_job
from raymill.training.metrics import compute_all
from raymill.training.objective import METRICS
from raymill.training.predictor import Predictor
from raymill.tuning.places import FOLDER, Places
from raymill.tuning.walk import with_params

from .results import SearchOutcome
from .workspace import Work


@dataclass(frozen=True)
class Trained:
    """What a bundle is written of.

    Attributes:
        job, weights: of the model. metrics: of its best epoch. history: one dict an epoch.
        members: the trials whose predictions are averaged; empty for a model of its own.
        resumes, offset: see `training.result.FitResult`.
        last: the model itself, where it was trained again on all rows: its weights and offset. The
            other attributes are then of the one before, which the validation rows can judge.
    """

    job: TrainJob
    weights: Mapping[str, Tensor]
    metrics: dict[str, float]
    history: list[dict[str, float]]
    best_epoch: int
    members: list[int] = field(default_factory=list)
    resumes: list[dict[str, Any]] = field(default_factory=list)
    offset: tuple[float, ...] = ()
    last: tuple[Mapping[str, Tensor], tuple[float, ...]] | None = None


def refit(work: Work, data: Prepared, job: TrainJob, found: SearchOutcome, folder: Path) -> Trained:
    """Train the winner in `folder` as `tuning.refit` says, and average it with others where
    `tuning.ensemble` asks for that and the average is better on validation.

    Raises:
        UsageError: the winner's weights are asked for but were not kept, or can't be begun with;
            or probabilities that must be corrected are to be averaged.
    """
    tuning = work.spec.tuning
    if found.trials and job.training.corrects_prior and (
        tuning.refit == "none" or tuning.ensemble is not None
    ):
        raise UsageError(Problem(
            rule="training.prior_correction corrects one model, trained anew",
            got=f"tuning.refit {tuning.refit}, tuning.ensemble {tuning.ensemble}",
            cure="Set refit to scratch and leave out ensemble, or set prior_correction to false."))
    mode = tuning.refit if found.trials else "scratch"
    if mode == "none":
        alone = _as_it_is(job, _weights_of_winner(work, found))
    else:
        alone = _fitted(work, data, _begun(work, job, found) if mode == "checkpoint" else job, folder)
    if tuning.ensemble is None or not found.trials:
        return alone
    return _better(work, data, alone, _members(work, data, job.family, found), folder)


def plan_of(work: Work, found: SearchOutcome) -> dict[str, Any]:
    """What the outcome of `refit` depends on beside the winner's job."""
    tuning = work.spec.tuning
    if not found.trials:
        return {}
    others = [trial["number"] for trial in _leaders(found, tuning.ensemble or 1)]
    return {"refit": tuning.refit, "leaders": others, "search": found.study}


def _fitted(work: Work, data: Prepared, job: TrainJob, folder: Path) -> Trained:
    store = work.store and work.store / f"train/{folder.name}"
    if store is not None:
        note(work.notify, f"checkpoints are published in {store}")
    fitted = train_distributed(job, data, folder / "train", work.notify, store)
    assert fitted.checkpoint is not None, "Ray Train's session keeps checkpoints"
    last = None
    if fitted.regrown is not None:
        assert fitted.regrown.checkpoint is not None
        last = load_weights(fitted.regrown.checkpoint), fitted.regrown.offset
    return Trained(job, load_weights(fitted.checkpoint), fitted.best, fitted.history,
                   fitted.best_epoch, resumes=fitted.resumes, offset=fitted.offset, last=last)


def _begun(work: Work, job: TrainJob, found: SearchOutcome) -> TrainJob:
    if fitter(job.family) is not None:
        raise UsageError(Problem(rule="tuning.refit: checkpoint begins training with weights",
                                 got=f"the family {job.family}, which has none to begin with",
                                 cure="Set tuning.refit to scratch or none."))
    return replace(job, start=str(_weights_of_winner(work, found)))


def _as_it_is(job: TrainJob, checkpoint: Path) -> Trained:
    """The winner with the weights of its best epoch, without any training."""
    progress = read_progress(newest_good(checkpoint.parent) or checkpoint)
    epochs = {int(row["epoch"]): row for row in progress.history}
    return Trained(job, load_weights(checkpoint), epochs[progress.best_epoch], progress.history,
                   progress.best_epoch)


def _places(work: Work, folder: Path) -> Places:
    store = work.store and work.store / f"search/{folder.name}/{FOLDER}"
    return Places(folder / FOLDER, store)


def _weights_of_winner(work: Work, found: SearchOutcome) -> Path:
    assert found.folder is not None and found.best_trial is not None
    checkpoint = _places(work, found.folder).best_checkpoint(found.best_trial)
    if checkpoint is None:
        raise UsageError(Problem(
            rule="tuning.refit takes the winner's weights from its trial",
            got=f"trial {found.best_trial}, whose checkpoint is not there (its result came from "
                "another trial, or the files were removed)",
            cure="Set tuning.refit to scratch."))
    return checkpoint


def _leaders(found: SearchOutcome, most: int) -> list[dict[str, Any]]:
    """The winner, then the best complete trials with other parameters."""
    up = METRICS[found.metric].maximize
    known = [t for t in found.trials if t["value"] is not None and t["state"] == "complete"]
    ranked = sorted(known, key=lambda t: (-t["value"] if up else t["value"], t["number"]))
    first = next(t for t in found.trials if t["number"] == found.best_trial)
    chosen = [first]
    for trial in ranked:
        if len(chosen) < most and all(trial["params"] != other["params"] for other in chosen):
            chosen.append(trial)
    return chosen


def _members(
    work: Work, data: Prepared, family: str, found: SearchOutcome
) -> list[tuple[int, TrainJob, Mapping[str, Tensor]]]:
    """(trial, job, weights) of the winner's companions, as their trials left them.

    `family` is the winner's, which is that of all where the search did not choose one.
    """
    spec, schema, most = work.spec, data.transform.schema, work.spec.tuning.ensemble or 1
    base = spec.model
    if base.family == AUTO:
        base = base.model_copy(update={"family": family})
    members: list[tuple[int, TrainJob, Mapping[str, Tensor]]] = []
    for trial in _leaders(found, most)[1:]:
        assert found.folder is not None
        checkpoint = _places(work, found.folder).best_checkpoint(trial["number"])
        if checkpoint is None:
            warn(work.notify, f"trial {trial['number']} left no weights: it is not averaged")
            continue
        model, training = with_params(base, spec.training, trial["params"])
        job = make_job(model, training, found.metric, schema, work.project)
        members.append((trial["number"], job, load_weights(checkpoint)))
    return members


def _better(
    work: Work, data: Prepared, alone: Trained,
    others: Sequence[tuple[int, TrainJob, Mapping[str, Tensor]]], folder: Path,
) -> Trained:
    """The average of all of them, when it is better on validation than the best alone."""
    if not others:
        note(work.notify, "no second trial left weights to average with: the best stays alone")
        return alone
    job = alone.job
    together = replace(
        job, family=ENSEMBLE,
        params=params_of([(job.family, job.params), *((j.family, j.params) for _, j, _ in others)]))
    weights = weights_of([alone.weights, *(w for _, _, w in others)])
    metric, count = job.metric, 1 + len(others)
    single = _validation(work, data, job, alone.weights, folder / "alone")
    average = _validation(work, data, together, weights, folder / "together")
    gain = average[metric] - single[metric] if job.maximize else single[metric] - average[metric]
    told = (f"the average of {count} models reaches {metric} {average[metric]:.4f} on validation, "
            f"the best alone {single[metric]:.4f}")
    broken = [limit.text for limit in work.spec.tuning.limits
              if limit.excess(average[limit.name]) > 0]
    if gain <= 0 or broken:
        why = f", but breaks {' and '.join(broken)}" if gain > 0 else ""
        note(work.notify, f"{told}{why}: the best stays alone")
        return alone
    note(work.notify, f"{told}: the average is the model")
    return replace(alone, job=together, weights=weights, last=None,
                   metrics={f"val_{name}": value for name, value in average.items()},
                   members=[number for number, _, _ in others])


def _validation(
    work: Work, data: Prepared, job: TrainJob, weights: Mapping[str, Tensor], folder: Path
) -> dict[str, float]:
    """Every metric of a model on the validation rows."""
    info = {"name": work.spec.name}
    predictor = Predictor(write_bundle(folder, job, weights, data, {}, info),
                          factories=allowed(work.home.path))
    table = data.table("validation")
    y, schema = data.transform.targets(table), job.schema
    if schema.task == "regression":
        y = y * schema.target_std + schema.target_mean
    return compute_all(y, predictor.scores(table), schema)
