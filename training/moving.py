"""Rows on their way to the device."""

from __future__ import annotations

import torch

from .shard import Batch, Shard

RESIDENT = 0.25  # share of a GPU's free memory that the training rows may take


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`; the copy to a GPU runs beside what the GPU still computes."""
    if device.type == "cpu":
        return batch
    return {name: tensor if tensor.is_cuda else tensor.pin_memory().to(device, non_blocking=True)
            for name, tensor in batch.items()}


def on_device_if_small(shard: Shard, device: torch.device) -> Shard:
    """The shard with its rows on the GPU where they take little of its memory: batches are then
    gathered there."""
    if device.type != "cuda":
        return shard
    free, _ = torch.cuda.mem_get_info(device)
    if shard.bytes > RESIDENT * free:
        return shard
    return shard.on(device)
