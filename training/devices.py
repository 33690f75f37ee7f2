"""Ray's GPUs: devices that torch can use, or counted only (`cluster.gpus` on a CPU box)."""

from __future__ import annotations

import ray
import torch


def usable_gpus() -> bool:
    """Whether the cluster's GPUs are more than a count: torch computes on them.

    Asked of a worker that holds one when this process sees none, for the driver's machine may be
    the only one without.
    """
    if not ray.cluster_resources().get("GPU", 0):
        return False
    if torch.cuda.is_available():
        return True
    return bool(ray.get(ray.remote(num_cpus=0, num_gpus=0.01)(_sees_one).remote()))


def _sees_one() -> bool:
    return torch.cuda.is_available()
