"""The parameters of each model family. Free of torch, so that a spec is checked fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raymill.specs import Part, PlacedError

Dropout = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=8192)]
Embedding = Annotated[int, Field(ge=1, le=512)]
Blocks = Annotated[int, Field(ge=1, le=64)]
Channels = Annotated[int, Field(ge=1, le=1024)]


class LinearParams(Part):
    """One linear layer over numbers and one-hot categories."""


class _NumberParams(Part):
    """How numbers are embedded: sines of learnt frequencies (`frequencies` of them, first drawn
    with `frequency_scale`), or a place in `frequencies` quantile bins."""

    numeric_embedding: Literal["none", "periodic", "piecewise"] = "periodic"
    """Numbers as they are, as sines of learnt frequencies, or as places in bins."""
    frequencies: Annotated[int, Field(ge=1, le=256)] = 24
    """How many sines, or bins."""
    frequency_scale: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Of the sines' first frequencies: higher tells nearer numbers apart."""


class MLPParams(_NumberParams):
    """Residual-free multilayer perceptron with embeddings for categories and numbers."""

    width: Width = 256
    """Units of each layer."""
    depth: Annotated[int, Field(ge=1, le=32)] = 3
    """Hidden layers."""
    dropout: Dropout = 0.3
    """Share of units that training hides."""
    embedding: Embedding = 16
    """Length of a number's and of a category's vector."""


class ResNetParams(_NumberParams):
    """Residual blocks over embedded numbers and categories."""

    width: Width = 192
    """Units between the blocks."""
    blocks: Blocks = 2
    """Residual blocks."""
    hidden_factor: Annotated[float, Field(gt=0, le=16)] = 2.0
    """Units within a block, as a multiple of width."""
    dropout: Dropout = 0.3
    """Share of units within a block that training hides."""
    residual_dropout: Dropout = 0.0
    """Share of a block's output that training hides."""
    embedding: Embedding = 16
    """Length of a number's and of a category's vector."""


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise PlacedError(f"the heads share the width evenly: {width} is no multiple of {heads}",
                          "width")


class FTTransformerParams(_NumberParams):
    """A transformer whose tokens are the columns; `width` is a multiple of `heads`."""

    width: Width = 64
    """Length of a column's vector."""
    blocks: Blocks = 2
    """Layers of attention."""
    heads: Annotated[int, Field(ge=1, le=256)] = 8
    """Of the attention; width is a multiple of it."""
    hidden_factor: Annotated[float, Field(gt=0, le=16)] = 1.333
    """Units of a block's feed-forward part, as a multiple of width."""
    attention_dropout: Dropout = 0.2
    """Share of attention that training hides."""
    dropout: Dropout = 0.1
    """Share of a feed-forward part's units that training hides."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        _check_heads(self.width, self.heads)
        return self


class _ImageParams(Part):
    """What image networks share; `flip` and `crop` change images at random while training."""

    dropout: Dropout = 0.2
    """Share of units before the last layer that training hides."""
    flip: bool = False
    """Mirrored left to right at even odds: not for letters and digits."""
    crop: Annotated[int, Field(ge=0, le=64)] = 0
    """Shifted by up to so many pixels each way."""


class CNNParams(_ImageParams):
    """Convolution blocks (3x3 conv, batch norm, ReLU, pooling) and a linear head."""

    channels: Channels = 32
    """Of the first block; each next one has twice as many."""
    blocks: Annotated[int, Field(ge=1, le=8)] = 3
    """Convolution blocks; each halves the image while its sides have 4 pixels."""


class ImageResNetParams(_ImageParams):
    """Stages that halve the image and double the channels, with residual blocks."""

    channels: Channels = 16
    """Of the first convolution; each stage has twice as many as before."""
    stages: Annotated[int, Field(ge=1, le=8)] = 2
    """Each halves the image while its sides have 4 pixels, and doubles the channels."""
    blocks: Annotated[int, Field(ge=1, le=32)] = 1
    """Residual blocks of each stage."""


class TextParams(Part):
    """Word vectors, an encoder over the words in their order, and a small network over the texts
    and the row's other columns; `width` is a multiple of `heads`."""

    encoder: Literal["convolution", "transformer", "none"] = "convolution"
    """What reads the words in their order; none: their mean and maximum."""
    width: Width = 96
    """Length of a word's vector."""
    blocks: Blocks = 1
    """Layers of the encoder."""
    heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Of the transformer; width is a multiple of it."""
    word_dropout: Dropout = 0.1
    """Share of words that training takes for unknown."""
    dropout: Dropout = 0.3
    """Share of units that training hides."""
    hidden: Width = 128
    """Units of the network over texts and columns."""
    embedding: Embedding = 16
    """Length of a category's vector."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        _check_heads(self.width, self.heads)
        return self


class GBDTParams(Part):
    """LightGBM: `rounds` of boosting, shared out evenly over `training.epochs`."""

    rounds: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Of boosting, at most: a tree each, or one for each of several classes."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 0.05
    """What each tree adds counts for so much."""
    leaves: Annotated[int, Field(ge=2, le=4096)] = 31
    """Of a tree, at most."""
    depth: Annotated[int, Field(ge=1, le=64)] | None = None
    """Of a tree, at most; null: the leaves alone bound it."""
    min_rows: Annotated[int, Field(ge=1)] = 20
    """Of a leaf, at least."""
    feature_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of columns drawn for each tree."""
    row_fraction: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of rows drawn for each tree."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    """Penalty on leaves' absolute values."""
    l2: Annotated[float, Field(ge=0)] = 1.0
    """Penalty on leaves' squares."""
    bins: Annotated[int, Field(ge=2, le=65_535)] = 511
    """Values that a number is told apart by, at most."""
    regrow: bool = True
    """Once the best number of rounds is known, grow them again on the validation rows too; this is
    the model, and the threshold is chosen by the one before it."""


FAMILY_PARAMS: dict[str, type[Part]] = {
    "linear": LinearParams,
    "mlp": MLPParams,
    "resnet": ResNetParams,
    "ft_transformer": FTTransformerParams,
    "cnn": CNNParams,
    "image_resnet": ImageResNetParams,
    "text": TextParams,
    "gbdt": GBDTParams,
}

# Fields of `training` that families with a fitting of their own follow; the others can't be set.
FOLLOWED: dict[str, frozenset[str]] = {
    "gbdt": frozenset({"epochs", "patience", "class_weights", "prior_correction", "workers",
                       "cpus_per_worker", "gpu", "max_failures", "watchdog", "seed"}),
}


def follows(family: str, field: str) -> bool:
    """Whether a family's fitting heeds a field of `training`."""
    return family not in FOLLOWED or field in FOLLOWED[family]


# What each family reads of a row.
INPUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("linear", "mlp", "resnet", "ft_transformer"), ("table", "text")),
    **dict.fromkeys(("cnn", "image_resnet"), ("image", "table", "text")),
    "text": ("text", "table"),
    "gbdt": ("table",),
}


def needed(family: str) -> tuple[str, ...]:
    """The inputs of which a family can't be without: an image or a text, or any for tables."""
    reads = INPUTS[family]
    return reads if reads[0] == "table" else reads[:1]


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
    "resnet": {
        "training.lr": {"low": 5e-4, "high": 5e-3, "log": True},
        "training.weight_decay": {"low": 1e-4, "high": 3e-1, "log": True},
        "model.width": {"choice": [128, 192, 256]},
        "model.blocks": {"low": 1, "high": 4},
        "model.dropout": {"low": 0.1, "high": 0.5},
        "model.frequency_scale": {"low": 0.3, "high": 4.0, "log": True},
    },
    "ft_transformer": {
        "training.lr": {"low": 3e-4, "high": 3e-3, "log": True},
        "training.weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
        "model.width": {"choice": [32, 64, 96]},
        "model.blocks": {"low": 1, "high": 3},
        "model.attention_dropout": {"low": 0.0, "high": 0.4},
        "model.dropout": {"low": 0.0, "high": 0.3},
    },
    "text": {
        "training.lr": {"low": 5e-4, "high": 5e-3, "log": True},
        "training.weight_decay": {"low": 1e-4, "high": 3e-1, "log": True},
        "model.encoder": {"choice": ["convolution", "transformer", "none"]},
        "model.width": {"choice": [64, 96, 128]},
        "model.word_dropout": {"low": 0.0, "high": 0.3},
        "model.dropout": {"low": 0.1, "high": 0.5},
    },
    "cnn": {
        "training.lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "model.channels": {"choice": [16, 32, 48]},
        "model.dropout": {"low": 0.0, "high": 0.5},
        "model.flip": {"choice": [False, True]},
        "model.crop": {"low": 0, "high": 3},
    },
    "image_resnet": {
        "training.lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "training.weight_decay": {"low": 1e-3, "high": 1e-1, "log": True},
        "model.channels": {"choice": [8, 16, 24]},
        "model.dropout": {"low": 0.0, "high": 0.5},
        "model.flip": {"choice": [False, True]},
        "model.crop": {"low": 0, "high": 3},
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
