"""The job's model."""

from __future__ import annotations

import torch
from torch import nn

from .factories import load_object
from .families import FAMILIES, build
from .job import TrainJob


def build_model(job: TrainJob) -> nn.Module:
    """The job's model with weights that its seed decides."""
    torch.manual_seed(job.training.seed)
    if job.family in FAMILIES:
        return build(job.family, job.params, job.schema)
    factory = load_object(job.family, job.project)
    return build(job.family, job.params, job.schema, {job.family: factory})
