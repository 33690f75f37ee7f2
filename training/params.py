"""The parameters of each model family. Free of torch, so that a spec is checked fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from raymill.specs import Part

Dropout = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=8192)]


class LinearParams(Part):
    """One linear layer over numbers and one-hot categories."""


class MLPParams(Part):
    """Residual-free multilayer perceptron with embeddings for categories and numbers."""

    width: Width = 256
    depth: Annotated[int, Field(ge=1, le=32)] = 3
    dropout: Dropout = 0.3
    embedding: Annotated[int, Field(ge=1, le=512)] = 16
    numeric_embedding: Literal["none", "periodic", "piecewise"] = "periodic"
    frequencies: Annotated[int, Field(ge=1, le=256)] = 24
    frequency_scale: Annotated[float, Field(gt=0, le=10)] = 1.0


class CNNParams(Part):
    """Convolution blocks (3x3 conv, batch norm, ReLU, pooling) and a linear head."""

    channels: Annotated[int, Field(ge=1, le=1024)] = 32
    blocks: Annotated[int, Field(ge=1, le=8)] = 3
    dropout: Dropout = 0.2
    flip: bool = False  # random horizontal flips while training


FAMILY_PARAMS: dict[str, type[Part]] = {
    "linear": LinearParams,
    "mlp": MLPParams,
    "cnn": CNNParams,
}


def is_factory(family: str) -> bool:
    """Whether `family` names a user's own `package.module:factory`."""
    module, colon, attribute = family.partition(":")
    return bool(
        colon and attribute.isidentifier() and all(p.isidentifier() for p in module.split("."))
    )


# The space searched when the spec names none: dotted spec field -> a dimension as in tuning.space.
DEFAULT_SPACES: dict[str, dict[str, dict[str, Any]]] = {
    "linear": {
        "training.lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "training.weight_decay": {"low": 1e-6, "high": 1e-1, "log": True},
    },
    "mlp": {
        "training.lr": {"low": 5e-4, "high": 5e-3, "log": True},
        "training.weight_decay": {"low": 1e-4, "high": 3e-1, "log": True},
        "model.width": {"choice": [128, 256, 384]},
        "model.depth": {"low": 2, "high": 4},
        "model.dropout": {"low": 0.1, "high": 0.5},
        "model.frequency_scale": {"low": 0.3, "high": 4.0, "log": True},
    },
    "cnn": {
        "training.lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "model.channels": {"choice": [16, 32, 48]},
        "model.dropout": {"low": 0.0, "high": 0.5},
    },
}
