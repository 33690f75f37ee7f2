"""A dress rehearsal: the job's own model, and its loop, on a few of its own rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from raymill.errors import TrainingError

from .checks import CHECKS, Subject, Verdict, alone, judged, rule_of, shapes, verdicts
from .families.base import FITTERS
from .job import TrainJob
from .loop import fit
from .model import build_model
from .result import FitResult
from .session import InlineSession
from .shard import Shard
from .spec import TrainingSpec

SAMPLE = 512  # rows of the training split that suffice
EPOCHS = 2
CHECKED = 64
# Where and how fast it runs: here it is one process on the CPU.
PLACE = {"workers", "cpus_per_worker", "gpu", "strategy", "precision", "compile"}
CANNOT_LEARN = ("linear",)  # of the built-in families


def rehearse(
    job: TrainJob, train: Mapping[str, NDArray[Any]], validation: Mapping[str, NDArray[Any]]
) -> Iterator[Verdict]:
    """Each check's verdict: the model's, then two short trainings by the job's own loop.

    `train` and `validation` are a few rows' tensors by name, `target` among them.
    """
    shards = Shard([train], job.training.seed), Shard([validation], job.training.seed)
    few = {name: tensor[:CHECKED] for name, tensor in shards[0].tensors.items()}
    subject = Subject(lambda seed: build_model(job.with_training(seed=seed)), job.schema, few,
                      job.family not in CANNOT_LEARN)
    fitted = job.family in FITTERS  # without gradients: there is nothing of a step to check
    yield from verdicts(subject, (shapes, alone) if fitted else CHECKS)
    yield judged("trained", rule_of(trained), lambda: trained(job, *shards))


def trained(job: TrainJob, train: Shard, validation: Shard) -> None:
    """two short trainings end, with finite metrics and equal weights"""
    kept = job.training.model_dump(exclude=PLACE)
    short = replace(job, training=TrainingSpec.model_validate(
        {**kept, "epochs": EPOCHS, "patience": None, "gpu": "never"}))
    one, other = (_short(short, train, validation) for _ in range(2))
    if one.epochs != EPOCHS:
        raise TrainingError("trained: the loop must go on until context.done",
                            cure=f"It finished {one.epochs} of {EPOCHS} epochs.")
    if not np.isfinite(one.best["val_loss"]):
        raise TrainingError("trained: the validation loss must stay finite",
                            cure="Lower training.lr, or set training.clip_norm.")
    apart = [name for name, tensor in one.weights.items()
             if not torch.equal(tensor, other.weights[name])]
    if apart:
        raise TrainingError(f"trained: equal seeds must train equal weights, but {apart[0]} differs",
                            cure="Draw random numbers from torch only, and keep no state in the "
                                 "module between runs; a resumed run could not be exact.")


def _short(job: TrainJob, train: Shard, validation: Shard) -> FitResult:
    return fit(job, train, validation, InlineSession())
