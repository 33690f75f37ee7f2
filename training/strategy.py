"""How the workers of a run hold one model: copies that exchange gradients, or a part each."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

UNIT = 100_000  # parameters from which a layer is gathered by itself
LISTS = (nn.ModuleList, nn.Sequential)


class Strategy(Protocol):
    """A model on the workers. Gradients are means over the workers.

    Attributes:
        module: what forward is called on. whole: whether every worker holds all parameters.
    """

    module: nn.Module
    whole: bool

    def syncing(self, last: bool) -> AbstractContextManager[Any]:
        """Around a part of a step: gradients are exchanged in the `last` only."""


class Copies:
    """A copy on every worker; one worker's is the model itself."""

    whole = True

    def __init__(self, model: nn.Module, world_size: int, device: torch.device) -> None:
        self.module = model
        self._many = world_size > 1
        if self._many:
            self.module = DistributedDataParallel(
                model, device_ids=[device.index] if device.type == "cuda" else None)

    def syncing(self, last: bool) -> AbstractContextManager[Any]:
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()


class Parts:
    """A part of every parameter on each worker, gathered layer by layer where it is needed
    (PyTorch's FSDP2). The model becomes one of `DTensor`s, in place."""

    whole = False

    def __init__(self, model: nn.Module, world_size: int, device: torch.device) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard  # slow to import

        mesh = init_device_mesh(device.type, (world_size,))
        for unit in units(model):
            fully_shard(unit, mesh=mesh)
        self._sharded: FSDPModule = fully_shard(model, mesh=mesh)
        self.module = model

    @contextmanager
    def syncing(self, last: bool) -> Any:
        self._sharded.set_requires_gradient_sync(last)
        yield


def units(model: nn.Module) -> list[nn.Module]:
    """The large layers in the model's lists of layers, inner ones first: a layer of a list is called
    as a whole, so its parameters can be gathered for just that long."""
    found = {id(layer): layer for module in reversed(list(model.modules()))
             if isinstance(module, LISTS) for layer in module
             if not isinstance(layer, nn.ModuleList | nn.ModuleDict)
             and sum(p.numel() for p in layer.parameters()) >= UNIT}
    return list(found.values())


def make_strategy(
    name: str, model: nn.Module, world_size: int, device: torch.device
) -> Strategy:
    """`ddp` or `fsdp`; every rank calls it with an equal model."""
    if name == "fsdp" and world_size > 1:
        return Parts(model, world_size, device)
    return Copies(model, world_size, device)


def spread_buffers(model: nn.Module, world_size: int) -> None:
    """Give every worker rank 0's buffers, like a batch norm's statistics: those are exported. Rank
    0's run is left as it would be without."""
    for buffer in model.buffers() if world_size > 1 else ():
        whole = buffer.contiguous()
        dist.broadcast(whole, src=0)
        if whole is not buffer:
            buffer.copy_(whole)


def is_in_parts(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor lies in parts on the workers. Where nobody imported the slow module of
    those, there is none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that may lie in parts on the workers; then every rank must call this."""
    return tensor.full_tensor() if is_in_parts(tensor) else tensor


def held_here(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This worker's parts of the tensors, sharing their memory."""
    return [t.to_local() if is_in_parts(t) else t for t in tensors]


def shapes_in_parts(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The whole shapes of those that lie in parts on the workers."""
    return {name: list(t.shape) for name, t in tensors.items() if is_in_parts(t)}


def like(whole: Tensor, place: Tensor) -> Tensor:
    """`whole` as it lies where `place` does: this worker's part of it, or all of it."""
    if not is_in_parts(place) or whole.shape != place.shape:
        return whole
    from torch.distributed.tensor import distribute_tensor

    moved = whole.to(place.device_mesh.device_type)
    return distribute_tensor(moved, place.device_mesh, place.placements, src_data_rank=None)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model, each tensor whole; every rank must call this."""
    return {name: whole_tensor(tensor) for name, tensor in model.state_dict().items()}


def load_weights_into(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put whole weights into a model, wherever its parameters lie."""
    state = model.state_dict()
    model.load_state_dict({name: like(tensor, state[name]) for name, tensor in weights.items()})
