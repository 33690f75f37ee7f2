"""What a model family is, and how one is built."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from raymill.data.schema import InputSchema
from raymill.errors import Problem, SpecError, TrainingError
from raymill.training.params import FAMILY_PARAMS, is_factory

from .cnn import CNN
from .ensemble import ENSEMBLE, Ensemble
from .ft_transformer import FTTransformer
from .gbdt import GBDT
from .image_resnet import ImageResNet
from .linear import Linear
from .mlp import MLP
from .resnet import ResNet
from .text import TextNet

if TYPE_CHECKING:
    from raymill.events import Notify
    from raymill.training.job import TrainJob
    from raymill.training.result import FitResult
    from raymill.training.session import Session
    from raymill.training.shard import Shard


class Family(Protocol):
    """Builds a model from the input schema and the family's parameters.

    The model's `forward(batch)` takes the schema's tensors by name (`numeric [B, N]` float32,
    `categorical [B, C]` int64, `text [B, L]` int64, `image [B, C, H, W]` uint8) and returns
    `[B, schema.outputs]`: logits, or the standardised value for regression. In eval mode a row's
    output must not depend on the other rows of its batch. `raymill.training.testing` checks all of
    this.
    """

    def __call__(self, schema: InputSchema, **params: Any) -> nn.Module: ...


FAMILIES: Mapping[str, Callable[..., nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "resnet": ResNet,
    "ft_transformer": FTTransformer,
    "cnn": CNN,
    "image_resnet": ImageResNet,
    "text": TextNet,
    "gbdt": GBDT,
}


class Fitter(Protocol):
    """Fits a family that gradients can't: the whole of a run, as `training.loop.fit` promises it.

    The model is still a module as above: its state is what checkpoints and the bundle hold.
    """

    def __call__(
        self, job: TrainJob, train: Shard, validation: Shard, session: Session, notify: Notify
    ) -> FitResult: ...


# The modules whose `fit` is a family's own; they are imported where they fit.
FITTERS: Mapping[str, str] = {"gbdt": "raymill.training.boosting"}


def fitter(family: str) -> Fitter | None:
    """A family's own fitting; None: the training loop does it."""
    if family not in FITTERS:
        return None
    found: Fitter = importlib.import_module(FITTERS[family]).fit
    return found


def build(
    family: str,
    params: Mapping[str, Any],
    schema: InputSchema,
    factories: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> nn.Module:
    """The model of a family, of an ensemble of them, or of one of the `factories` (the user's own,
    by name).

    Raises:
        SpecError: an unknown family, or one that `factories` does not allow.
        TrainingError: the user's factory raised, or returned no module.
    """
    if family in FAMILIES:
        return FAMILIES[family](schema, **FAMILY_PARAMS[family].model_validate(params).model_dump())
    if family == ENSEMBLE:
        parts = [build(part["family"], part["params"], schema, factories)
                 for part in params["members"]]
        return Ensemble(parts, schema)
    factory = (factories or {}).get(family)
    if factory is None:
        own = " that this project allows" if is_factory(family) else ""
        raise SpecError(Problem(rule=f"a model's family must be one of {', '.join(FAMILIES)}, or a "
                                f"factory{own}", got=repr(family)))
    try:
        model = factory(schema, **params)
    except Exception as error:
        raise TrainingError(Problem(rule=f"the factory {family} must build a model", got=repr(error),
                                    cure="It is called as factory(schema, **params).")) from error
    if not isinstance(model, nn.Module):
        raise TrainingError(Problem(rule=f"the factory {family} must return a torch.nn.Module",
                                    got=type(model).__name__))
    return model


def families_in(family: str, params: Mapping[str, Any]) -> list[str]:
    """The families that a model is made of: its members', or its own."""
    return [part["family"] for part in params["members"]] if family == ENSEMBLE else [family]


__all__ = ["FAMILIES", "Family", "build", "families_in"]
