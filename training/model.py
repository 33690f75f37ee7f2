"""The job's model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .checkpoint import load_weights
from .factories import load_object
from .families import FAMILIES, build
from .job import TrainJob


def build_model(job: TrainJob) -> nn.Module:
    """The job's model with the weights of its `start`, or with those that its seed decides."""
    torch.manual_seed(job.training.seed)
    model = _built(job)
    if job.start is not None:
        model.load_state_dict(load_weights(_start(job.start)))
    return model


def _start(place: str) -> Path:
    """The checkpoint at a path, or in a store."""
    if "://" not in place:
        return Path(place)
    from .mirrored import copied

    return copied(place)


def _built(job: TrainJob) -> nn.Module:
    if job.family in FAMILIES:
        return build(job.family, job.params, job.schema)
    factory = load_object(job.family, job.project)
    return build(job.family, job.params, job.schema, {job.family: factory})
