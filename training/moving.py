"""Rows on their way to the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .shard import Batch, Shard

RESIDENT = 0.25  # share of a GPU's free memory that the training rows may take


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, to a GPU through pinned memory."""
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


def ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on `device`. Those for a GPU are gathered and copied in a stream of their own:
    beside the step before, which the GPU is still at when the next batch is asked for."""
    return batches if device.type == "cpu" else _beside(batches, device)


def _beside(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)
    steps = torch.cuda.current_stream(device)
    stream.wait_stream(steps)  # rows that lie on the GPU are still on their way there, perhaps
    while True:
        with torch.cuda.stream(stream):
            batch = next(batches, None)
            given = moved(batch, device) if batch is not None else None
        if given is None:
            return
        steps.wait_stream(stream)
        for tensor in given.values():
            tensor.record_stream(steps)  # its memory is not given away before the step is done
        yield given
