"""The optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .eager import eager
from .spec import TrainingSpec
from .strategy import is_in_parts

SGD_MOMENTUM, MUON_MOMENTUM = 0.9, 0.95
_ADAMW = eager(torch.optim.AdamW)
_MUON = eager(torch.optim.Muon)
_SGD = eager(torch.optim.SGD)


def make_optimizer(model: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """The spec's optimizer, fused where torch can; matrices decay, biases and scales do not.

    `muon` orthogonalises the steps of hidden matrices (Jordan 2024), scaled to the size of AdamW's
    so that one learning rate serves both; embeddings, biases and all else are AdamW's.
    """
    if spec.optimizer == "sgd":
        momentum = SGD_MOMENTUM if spec.momentum is None else spec.momentum
        whole = not any(is_in_parts(p) for p in _trained(model))  # torch fuses no SGD of parts
        return _SGD(_groups(_trained(model), spec), lr=spec.lr, fused=whole, foreach=not whole,
                    momentum=momentum, nesterov=bool(spec.nesterov))
    if spec.optimizer == "muon":
        return _muon(model, spec)
    return _adamw(_trained(model), spec)


def _trained(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _groups(parameters: list[Tensor], spec: TrainingSpec) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _adamw(parameters: list[Tensor], spec: TrainingSpec) -> torch.optim.Optimizer:
    return _ADAMW(_groups(parameters, spec), lr=spec.lr, fused=True)


def _muon(model: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    looked_up = {id(p) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)
                 for p in m.parameters()}
    matrices = [p for p in _trained(model) if p.ndim == 2 and id(p) not in looked_up]
    taken = {id(p) for p in matrices}
    rest = [p for p in _trained(model) if id(p) not in taken]
    momentum = MUON_MOMENTUM if spec.momentum is None else spec.momentum
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(_MUON(
            matrices, lr=spec.lr, weight_decay=spec.weight_decay, momentum=momentum,
            nesterov=spec.nesterov is not False, adjust_lr_fn="match_rms_adamw"))
    if rest:
        parts.append(_adamw(rest, spec))
    return Together(*parts) if len(parts) > 1 else parts[0]


class Together(torch.optim.Optimizer):
    """Several optimizers of different parameters as one: groups and state are shared."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "a closure would run once a part"
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()
