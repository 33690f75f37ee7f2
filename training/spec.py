"""The specs of the model and of its training."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from raymill.specs import Duration, Part, PlacedError

from .params import FAMILY_PARAMS, is_factory

ClassWeight = Annotated[float, Field(gt=0)]


class ModelSpec(Part):
    """The model: `family` and, beside it, that family's own parameters.

    `auto` lets the search choose among the families that do well on such data (see
    `training.auto`); without a search it is `gbdt` for tables, `text` where a column is free text,
    and `cnn` for images. `package.module:factory` is a function of
    the project's own: it is called as `factory(schema, **params)` and returns a `torch.nn.Module`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    family: str = "auto"
    """auto, a family's name, or package.module:factory."""

    @model_validator(mode="after")
    def _known(self) -> ModelSpec:
        if is_factory(self.family) or (self.family == "auto" and not self.params):
            return self
        if self.family == "auto":
            raise ValueError("model parameters need model.family: name one of "
                             + ", ".join(FAMILY_PARAMS))
        if self.family not in FAMILY_PARAMS:
            near = difflib.get_close_matches(self.family, FAMILY_PARAMS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"model.family must be auto, {', '.join(FAMILY_PARAMS)} or package.module:factory,"
                f" but got {self.family!r}{hint}"
            )
        FAMILY_PARAMS[self.family].model_validate(self.params)
        return self

    @property
    def params(self) -> dict[str, Any]:
        """What the spec says beside `family`."""
        return dict(self.__pydantic_extra__ or {})

    def resolved(self, family: str) -> dict[str, Any]:
        """The full parameters of `family`: the spec's, and the defaults of the others."""
        if family not in FAMILY_PARAMS:
            return self.params
        return FAMILY_PARAMS[family].model_validate(self.params).model_dump()


class Workers(Part):
    """A range: as many workers as the cluster has room for, more or fewer while the run goes on."""

    min: Annotated[int, Field(ge=1, le=4096)] = 1
    """The fewest that it trains with."""
    max: Annotated[int, Field(ge=1, le=4096)]
    """The most."""

    @model_validator(mode="after")
    def _ordered(self) -> Workers:
        if self.min > self.max:
            raise PlacedError(f"min must not be above max ({self.max}), but got {self.min}", "min")
        return self


class TrainingSpec(Part):
    """How the model is trained. A key that would do nothing beside the others is refused."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Passes over the training rows, at most."""
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Rows of a step, over all workers; auto grows with the data, from 32 to 1024 (256 with images
    or texts), and on a GPU as far as it fits."""
    accumulate: Annotated[int, Field(ge=1, le=4096)] = 1
    """Parts that a batch is computed in: the same step with less memory."""
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """muon is for matrices, with AdamW for the rest."""
    lr: Annotated[float, Field(gt=0, le=10)] = 2e-3
    """The learning rate, at its highest."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-2
    """Of matrices and kernels; biases and scales do not decay."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of sgd and muon; null: 0.9 for sgd, 0.95 for muon."""
    nesterov: bool | None = None
    """Of sgd and muon; null: for muon only."""
    schedule: Literal["constant", "linear", "cosine", "one_cycle", "plateau"] = "cosine"
    """How the learning rate goes after the warmup."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of all steps in which the learning rate rises."""
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """The norm that gradients are cut to; null: as they are."""
    loss: Literal["auto", "cross_entropy", "focal", "mse", "mae", "huber", "quantile"] = "auto"
    """auto: cross_entropy for classes, mse for numbers."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of cross_entropy: the share of a label that all classes get."""
    focal_gamma: Annotated[float, Field(ge=0, le=10)] | None = None
    """Of focal; null: 2."""
    huber_delta: Annotated[float, Field(gt=0)] | None = None
    """Of huber, in standard deviations of the target; null: 1."""
    quantile: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the loss quantile; null: 0.5."""
    class_weights: Literal["none", "balanced"] | dict[str, ClassWeight] = "none"
    """balanced, or a weight above 0 a class by its name."""
    resample: Literal["none", "balanced"] = "none"
    """balanced: an epoch takes every class alike often."""
    prior_correction: bool | None = None
    """Whether probabilities are brought back to the classes' own frequencies; null: where rows are
    resampled."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an average of the weights, which is what is kept; null: none."""
    patience: Annotated[int, Field(ge=1)] | None = 6
    """Epochs without a better validation metric that end it; null: all epochs."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on a GPU that computes in it, else fp32."""
    compile: bool = False
    """torch.compile, where it works."""
    workers: Annotated[int, Field(ge=1, le=4096)] | Workers = 1
    """Processes that train together, or a range like {min: 1, max: 8}."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """ddp: a copy of the model on each worker; fsdp: a part of it."""
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = None
    """null: an equal share of the cluster's."""
    gpu: Literal["auto", "never", "require"] = "auto"
    """auto: one for each worker, or none where there are too few; never: CPUs; require: too few
    are refused."""
    guard_every: Annotated[int, Field(ge=1)] | None = 100
    """Steps between looks at whether all workers are alike; null: never."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often workers may be lost and replaced."""
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] | Duration = "auto"
    """Steps, or a duration like 5m, between checkpoints within an epoch; each epoch's end is one
    anyway, and auto adds one every 5 minutes."""
    watchdog: Literal["auto", "off"] | Duration = "auto"
    """How long a worker's steps may stop before it is restarted; auto: 30s, or 20 of its steps if
    that is longer."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the first weights, the rows' order, and dropout."""
    loop: str | None = None
    """A training loop of your own, package.module:loop."""

    @property
    def changed(self) -> frozenset[str]:
        """The fields whose values are not the defaults."""
        return frozenset(
            name for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True))

    @property
    def most_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def fewest_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def corrects_prior(self) -> bool:
        """Whether probabilities are brought back to the classes' own frequencies."""
        if self.prior_correction is None:
            return self.resample != "none"
        return self.prior_correction

    @model_validator(mode="after")
    def _loop_names_code(self) -> TrainingSpec:
        if self.loop is not None and not is_factory(self.loop):
            raise PlacedError(f"must be package.module:loop, but got {self.loop!r}", "loop")
        return self

    @model_validator(mode="after")
    def _no_idle_key(self) -> TrainingSpec:
        """A key that belongs to others is refused where it would do nothing."""
        balanced = self.class_weights != "none" or self.resample != "none"
        for key, idle, belongs in (
            ("momentum", self.momentum is not None and self.optimizer == "adamw",
             "it is for optimizer sgd and muon"),
            ("nesterov", self.nesterov is not None and self.optimizer == "adamw",
             "it is for optimizer sgd and muon"),
            ("focal_gamma", self.focal_gamma is not None and self.loss != "focal",
             "it is for loss: focal"),
            ("huber_delta", self.huber_delta is not None and self.loss != "huber",
             "it is for loss: huber"),
            ("quantile", self.quantile is not None and self.loss != "quantile",
             "it is for loss: quantile"),
            ("label_smoothing",
             self.label_smoothing > 0 and self.loss not in ("auto", "cross_entropy"),
             "it is for the cross entropy of classes"),
            ("prior_correction", self.prior_correction is not None and not balanced,
             "it takes back what class_weights or resample did"),
        ):
            if idle:
                raise PlacedError(f"{key} does nothing here: {belongs}", key)
        return self

    @model_validator(mode="after")
    def _together(self) -> TrainingSpec:
        """Keys that can't be had together."""
        if self.resample != "none" and self.class_weights != "none":
            raise PlacedError("take one of resample and class_weights: either balances the classes",
                              "resample")
        if self.nesterov and self.momentum == 0:
            raise PlacedError("nesterov needs a momentum above 0", "nesterov")
        if self.optimizer == "muon" and self.strategy == "fsdp":
            raise PlacedError("muon needs whole matrices, which fsdp parts; take adamw or sgd, or "
                              "strategy ddp", "optimizer")
        if self.compile and self.strategy == "fsdp":
            raise PlacedError("compile and strategy fsdp can't be had together", "compile")
        if self.loop is not None and self.accumulate > 1:
            raise PlacedError("a loop of one's own parts its batches itself", "accumulate")
        return self
