"""The specs of the model and of its training."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from raymill.specs import Duration, Part

from .params import FAMILY_PARAMS, is_factory


class ModelSpec(Part):
    """The model: `family` and, beside it, that family's own parameters.

    `auto` lets the search choose among the families that do well on such data (see
    `training.auto`); without a search it is `gbdt` for tables, `text` where a column is free text,
    and `cnn` for images. `package.module:factory` is a function of
    the project's own: it is called as `factory(schema, **params)` and returns a `torch.nn.Module`.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    family: str = "auto"

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


class TrainingSpec(Part):
    """How the model is trained.

    `batch_size` is global: over all workers. `auto` grows with the data, from 32 to 1024 rows
    (256 images). `checkpoint_every` is a number of steps or a duration (like 5m) between
    checkpoints within an epoch; each epoch's end is one anyway, and `auto` adds one every 5
    minutes. `watchdog` is how long a worker's steps may stop before it is restarted; `auto` is
    30s, or 20 of its steps if that is longer.
    """

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 20
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    lr: Annotated[float, Field(gt=0, le=10)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-2
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.3  # share of all steps
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    patience: Annotated[int, Field(ge=1)] | None = 6  # epochs without a better validation metric
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    cpus_per_worker: Annotated[float, Field(gt=0)] | None = None  # None: an equal share
    gpu: Literal["auto", "never", "require"] = "auto"
    max_failures: Annotated[int, Field(ge=0)] = 3
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] | Duration = "auto"
    watchdog: Literal["auto", "off"] | Duration = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    loop: str | None = None  # the user's own package.module:loop

    @property
    def changed(self) -> frozenset[str]:
        """The fields whose values are not the defaults."""
        return frozenset(
            name for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True))

    @model_validator(mode="after")
    def _loop_names_code(self) -> TrainingSpec:
        if self.loop is not None and not is_factory(self.loop):
            raise ValueError(f"training.loop must be package.module:loop, but got {self.loop!r}")
        return self
