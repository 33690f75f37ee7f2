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
    """How rows are shared out."""

    by: Literal["auto", "random", "stratified", "time", "group"] = "auto"
    """auto: time where data.time is set, else group where data.group is, else stratified for
    classes and random for numbers."""
    train: Fraction = 0.7
    """Share of the rows."""
    validation: Fraction = 0.15
    """Share of the rows that search and early stopping judge by."""
    test: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the rows that only the evaluation sees; 0 with data.test."""
    gap: Duration = "0d"
    """For splits by time: rows this long after a cut belong to no split."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another seed is another split, unless it goes by time."""

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSpec:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, but got {total:g}")
        return self


class ImageSpec(Part):
    """How images are brought to one shape: `[channels, height, width]` of uint8."""

    height: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Pixels; null: that of the first image."""
    width: Annotated[int, Field(ge=4, le=1024)] | None = None
    """Pixels; null: that of the first image."""
    channels: Literal[1, 3] | None = None
    """1: grey, 3: colour; null: those of the first image."""


class DataSpec(Part):
    """Where the rows are and what they mean.

    `source`, `validation` and `test` take files, globs and folders, local or `s3://`; local ones
    are relative to the spec's folder. With `test` given, `source` is split into train and
    validation only.
    """

    source: str | Paths
    """The rows: files, globs or folders."""
    target: str
    """The column that is predicted."""
    validation: str | Paths | None = None
    """Rows of their own for validation; source is not split for it then."""
    test: str | Paths | None = None
    """Rows of their own for the test; source is not split for it then."""
    format: Format = "auto"
    """Of the files; auto goes by their endings."""
    task: Task | None = None
    """What is predicted; null: told by the target's values."""
    columns: dict[str, Kind] = Field(default_factory=dict)
    """Kinds by column, where the ones inferred are wrong."""
    drop: list[str] = Field(default_factory=list)
    """Columns that are left out."""
    time: str | None = None
    """The column with a row's time: splits go by it, later rows are for the test."""
    group: str | None = None
    """The column whose equal values stay in one split."""
    key: list[str] = Field(default_factory=list)
    """Columns that name a row together; no two rows may have the same."""
    split: SplitSpec = SplitSpec()
    """How rows are shared out."""
    contract: str | None = None
    """The file that says what a row must look like; null: inferred at every run."""
    on_violation: Literal["fail", "quarantine"] = "fail"
    """What a row that breaks the contract does: end the run, or be set aside with reasons."""
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Of the rows, how many may be set aside; more end the run."""
    image: ImageSpec = ImageSpec()
    """How images are brought to one shape."""

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
