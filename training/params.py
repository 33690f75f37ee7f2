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


class GBDTParams(Part):
    """LightGBM: `rounds` of boosting, shared out evenly over `training.epochs`."""

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 1000
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    leaves: Annotated[int, Field(ge=2, le=4096)] = 31
    depth: Annotated[int, Field(ge=1, le=64)] | None = None  # None: the leaves alone bound it
    min_rows: Annotated[int, Field(ge=1)] = 20  # of a leaf
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5  # drawn for each tree
    row_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9  # drawn for each tree
    l1: Annotated[float, Field(ge=0)] = 0.0
    l2: Annotated[float, Field(ge=0)] = 1.0
    bins: Annotated[int, Field(ge=2, le=65_535)] = 255  # of a number


FAMILY_PARAMS: dict[str, type[Part]] = {
    "linear": LinearParams,
    "mlp": MLPParams,
    "cnn": CNNParams,
    "gbdt": GBDTParams,
}

# Fields of `training` that families with a fitting of their own follow; the others can't be set.
FOLLOWED: dict[str, frozenset[str]] = {
    "gbdt": frozenset({"epochs", "patience", "class_weights", "workers", "cpus_per_worker", "gpu",
                       "max_failures", "seed"}),
}


def follows(family: str, field: str) -> bool:
    """Whether a family's fitting heeds a field of `training`."""
    return family not in FOLLOWED or field in FOLLOWED[family]


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
    "gbdt": {
        "model.learning_rate": {"low": 0.02, "high": 0.15, "log": True},
        "model.leaves": {"low": 8, "high": 128, "log": True},
        "model.min_rows": {"low": 5, "high": 200, "log": True},
        "model.feature_fraction": {"low": 0.3, "high": 1.0},
        "model.row_fraction": {"low": 0.6, "high": 1.0},
        "model.l2": {"low": 1e-3, "high": 30.0, "log": True},
    },
}
