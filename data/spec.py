"""The spec of the data: where it is, what is predicted, how it is split and checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raymill.specs import Duration, Part, PlacedError, seconds

Task = Literal["binary", "multiclass", "regression"]
Kind = Literal["numeric", "categorical", "datetime", "text", "image", "ignore"]
Format = Literal["auto", "csv", "parquet", "jsonl", "images"]
Paths = Annotated[list[str], Field(min_length=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class SplitSpec(Part):
    """How rows are shared out. `auto` takes time when `data.time` is set, else group when
    `data.group` is set, else stratified for classes and random for numbers."""

    by: Literal["auto", "random", "stratified", "time", "group"] = "auto"
    train: Fraction = 0.7
    validation: Fraction = 0.15
    test: Annotated[float, Field(ge=0, lt=1)] = 0.15
    gap: Duration = "0d"
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSpec:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, but got {total:g}")
        return self


class ImageSpec(Part):
    """How images are brought to one shape: `[channels, height, width]` of uint8."""

    height: Annotated[int, Field(ge=4, le=1024)] | None = None  # None: that of the first image
    width: Annotated[int, Field(ge=4, le=1024)] | None = None
    channels: Literal[1, 3] | None = None


class DataSpec(Part):
    """Where the rows are and what they mean.

    `source`, `validation` and `test` take files, globs and folders, local or `s3://`; local ones
    are relative to the spec's folder. With `test` given, `source` is split into train and
    validation only.
    """

    source: str | Paths
    target: str
    validation: str | Paths | None = None
    test: str | Paths | None = None
    format: Format = "auto"
    task: Task | None = None
    columns: dict[str, Kind] = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list)
    time: str | None = None
    group: str | None = None
    key: list[str] = Field(default_factory=list)
    split: SplitSpec = SplitSpec()
    contract: str | None = None
    on_violation: Literal["fail", "quarantine"] = "fail"
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    image: ImageSpec = ImageSpec()

    @model_validator(mode="after")
    def _consistent(self) -> DataSpec:
        if self.split.by == "time" and self.time is None:
            raise ValueError("split.by: time needs data.time, the column that holds the time")
        if self.split.by == "group" and self.group is None:
            raise ValueError("split.by: group needs data.group, the column that names the group")
        if self.target in self.drop:
            raise ValueError(f"the target {self.target!r} can't be in data.drop")
        for role, names, hidden in (
            ("time", [self.time], "data.columns: {%s: ignore} hides it from the model"),
            ("group", [self.group], "the group %s is not shown to the model anyway"),
            ("key", self.key, "the key %s is not shown to the model anyway"),
        ):
            for name in names:
                if name is not None and name in self.drop:
                    raise PlacedError(f"data.{role} can't be in data.drop, which leaves it out: take "
                                      f"it out there; {hidden % name}", "drop")
        by_time = self.split.by == "time" or (self.split.by == "auto" and self.time is not None)
        if seconds(self.split.gap) > 0 and not by_time:
            raise PlacedError("a gap is for splits by time only: set data.time and split.by: time, "
                              "or leave the gap out", "split", "gap")
        if self.split.by == "stratified" and self.task == "regression":
            raise PlacedError("split.by: stratified is for classes: take random for a regression",
                              "split", "by")
        if self.split.test == 0 and self.test is None:
            raise PlacedError("models are tested on rows of their own: set data.test, or "
                              "split.test > 0", "split", "test")
        return self
