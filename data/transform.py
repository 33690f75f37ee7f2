"""Conformed rows to the tensors of a model; fitted on the training split, its state is JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raymill.errors import DataError, Problem

from .contract import Contract
from .dates import Dates
from .images import Shape, decode
from .schema import InputSchema
from .spec import ImageSpec, Task
from .summary import ColumnSummary, Numbers, as_floats
from .text import Text, starts

if TYPE_CHECKING:
    import ray.data

    from .stats import Summaries

KNOTS = 256
BOUND = 5.2  # the normal quantile of 1e-7: no value lies further out
MAX_CATEGORIES = 10_000
UNKNOWN, MISSING, FIRST = 0, 1, 2
FEW = 64  # rows below which a dictionary is quicker than an Arrow kernel


@dataclass(frozen=True)
class Number:
    """A number's map to a normal distribution: linear between the knots `x` -> `y`. Missing values
    become `fill`, and with `flag` a second output says so."""

    column: str
    fill: float
    flag: bool
    x: tuple[float, ...]
    y: tuple[float, ...]

    @staticmethod
    def fit(column: str, seen: ColumnSummary) -> Number:
        fill = float(seen.numbers.quantiles(np.array([0.5]))[0]) if seen.numbers.count else 0.0
        x, y = normal_knots(seen.numbers)
        return Number(column, fill, seen.nulls > 0, x, y)

    @property
    def names(self) -> list[str]:
        return [self.column, f"{self.column}:missing"] if self.flag else [self.column]

    def apply(self, array: pa.Array, out: NDArray[np.float32]) -> None:
        values = as_floats(array)
        if array.null_count:
            missing = np.isnan(values)
            values = np.where(missing, self.fill, values)
            if self.flag:
                out[:, 1] = missing
        elif self.flag:
            out[:, 1] = 0
        out[:, 0] = np.interp(values, self._x, self._y)

    @cached_property
    def _x(self) -> NDArray[np.float64]:
        return np.array(self.x)

    @cached_property
    def _y(self) -> NDArray[np.float64]:
        return np.array(self.y)


def normal_knots(numbers: Numbers) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Up to 256 quantiles and the normal quantile of each one's mid-rank, so that a value that
    stands often lies in the middle of its own ranks; the ends go on, clipped to +-5.2."""
    if not numbers.count:
        return (0.0,), (0.0,)
    x = np.unique(numbers.quantiles(np.linspace(0, 1, KNOTS)))
    below, upto = numbers.sketch.ranks(x)
    middle = np.clip((below + upto) / 2, 1e-7, 1 - 1e-7)
    y = np.array([NormalDist().inv_cdf(float(rank)) for rank in middle])
    if len(x) == 1:
        return (float(x[0]),), (0.0,)
    slopes = (y[1] - y[0]) / (x[1] - x[0]), (y[-1] - y[-2]) / (x[-1] - x[-2])
    if y[0] > -BOUND and slopes[0] > 0:
        x, y = np.insert(x, 0, x[0] - (y[0] + BOUND) / slopes[0]), np.insert(y, 0, -BOUND)
    if y[-1] < BOUND and slopes[1] > 0:
        x, y = np.append(x, x[-1] + (BOUND - y[-1]) / slopes[1]), np.append(y, BOUND)
    return tuple(x.tolist()), tuple(y.tolist())


@dataclass(frozen=True)
class Category:
    """A category's codes: 0 unknown, 1 missing, then `values` in their order."""

    column: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.values) + FIRST

    def codes(self, array: pa.Array) -> Any:
        if not pa.types.is_string(array.type):
            array = array.cast(pa.string())
        if len(array) < FEW:
            return [MISSING if value is None else self._code.get(value, UNKNOWN)
                    for value in array.to_pylist()]
        index = pc.add(pc.index_in(array, self._values), FIRST)
        codes = pc.fill_null(index, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)
        if array.null_count:
            codes[pc.is_null(array).to_numpy(zero_copy_only=False)] = MISSING
        return codes

    @cached_property
    def _code(self) -> dict[str, int]:
        return {value: code for code, value in enumerate(self.values, FIRST)}

    @cached_property
    def _values(self) -> pa.Array:
        return pa.array(self.values, pa.string())


@dataclass(frozen=True)
class Transform:
    """Fitted state. `apply` is pure, safe from several threads, and the same in training, batch
    and serving; it needs the features' columns only, `targets` only the target's."""

    task: Task
    target: str
    classes: tuple[str, ...] | None
    target_mean: float
    target_std: float
    numbers: tuple[Number, ...]
    dates: tuple[Dates, ...]
    categories: tuple[Category, ...]
    image_column: str | None
    image: Shape | None
    texts: tuple[Text, ...] = ()

    @property
    def _numeric(self) -> tuple[Number | Dates, ...]:
        return (*self.numbers, *self.dates)

    @cached_property
    def schema(self) -> InputSchema:
        """Names and shapes of what `apply` gives."""
        names = [name for part in self._numeric for name in part.names]
        return InputSchema(
            numeric=tuple(names),
            categorical=tuple((part.column, part.size) for part in self.categories),
            image=self.image, task=self.task, classes=self.classes,
            target_mean=self.target_mean, target_std=self.target_std,
            text=tuple((part.column, len(part.words), part.length) for part in self.texts))

    def apply(self, table: pa.Table) -> dict[str, NDArray[Any]]:
        """`numeric [B, N]` float32, `categorical [B, C]` int64, `text [B, L]` int64,
        `image [B, C, H, W]` uint8; those that the data has."""
        rows, width = len(table), len(self.schema.numeric)
        arrays: dict[str, NDArray[Any]] = {}
        if width:
            numeric = np.empty((rows, width), np.float32)
            at = 0
            for part in self._numeric:
                wide = len(part.names)
                part.apply(_plain(table, part.column), numeric[:, at : at + wide])
                at += wide
            arrays["numeric"] = numeric
        if self.categories:
            codes = np.empty((rows, len(self.categories)), np.int64)
            for index, category in enumerate(self.categories):
                codes[:, index] = category.codes(_plain(table, category.column))
            arrays["categorical"] = codes
        if self.texts:
            arrays["text"] = self._words(table)
        if self.image is not None and self.image_column is not None:
            images = np.zeros((rows, *self.image), np.uint8)
            for index, data in enumerate(table[self.image_column].to_pylist()):
                if data is not None:
                    images[index] = decode(data, self.image)
            arrays["image"] = images
        return arrays

    def _words(self, table: pa.Table) -> NDArray[np.int64]:
        words = np.zeros((len(table), sum(self.schema.places)), np.int64)
        at = 0
        for text, first in zip(self.texts, starts(self.texts), strict=True):
            text.apply(_plain(table, text.column), first, words[:, at : at + text.length])
            at += text.length
        return words

    def targets(self, table: pa.Table) -> NDArray[Any]:
        """`[B]` class indices (int64), or standardised values (float32)."""
        column = _plain(table, self.target)
        if self.classes is None:
            values = (as_floats(column) - self.target_mean) / self.target_std
            return values.astype(np.float32)
        text = column if pa.types.is_string(column.type) else column.cast(pa.string())
        index = pc.index_in(text, pa.array(self.classes, pa.string()))
        if index.null_count:
            raise DataError(Problem(rule=f"{self.target} must be one of the classes",
                                    got=f"{index.null_count} values that are not"))
        return np.asarray(index.to_numpy(), np.int64)

    def to_dict(self) -> dict[str, Any]:
        return {"version": 1, **asdict(self)}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Transform:
        def tuples(part: Mapping[str, Any]) -> dict[str, Any]:
            return {k: tuple(v) if isinstance(v, list) else v for k, v in part.items()}

        plain = {key: state[key] for key in ("task", "target", "target_mean", "target_std",
                                             "image_column")}
        return cls(
            **plain,
            classes=tuple(state["classes"]) if state["classes"] is not None else None,
            numbers=tuple(Number(**tuples(part)) for part in state["numbers"]),
            dates=tuple(Dates(**tuples(part)) for part in state["dates"]),
            categories=tuple(Category(**tuples(part)) for part in state["categories"]),
            image=tuple(state["image"]) if state["image"] is not None else None,
            texts=tuple(Text(**tuples(part)) for part in state.get("texts", ())))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_dict()), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Transform:
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _plain(table: pa.Table, name: str) -> pa.Array:
    column = table[name]
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def fit(ds: ray.data.Dataset, contract: Contract, image: ImageSpec | None = None) -> Transform:
    """A transform of the rows of `ds` (conformed, training split only), by parallel aggregation."""
    from .stats import summarise

    return from_summaries(summarise(ds, contract), contract, image)


def from_summaries(seen: Summaries, contract: Contract, image: ImageSpec | None) -> Transform:
    """The transform that merged summaries of all training rows make."""
    kinds = {name: contract.columns[name].kind for name in contract.features}
    target = seen[contract.target]
    images = [name for name, kind in kinds.items() if kind == "image"]
    regression = contract.classes is None
    return Transform(
        task=contract.task, target=contract.target,
        classes=tuple(contract.classes) if contract.classes is not None else None,
        target_mean=target.numbers.mean if regression else 0.0,
        target_std=(target.numbers.std or 1.0) if regression else 1.0,
        numbers=tuple(Number.fit(name, seen[name]) for name, kind in kinds.items()
                      if kind == "numeric"),
        dates=tuple(Dates.fit(name, seen[name], running=name != contract.time)
                    for name, kind in kinds.items() if kind == "datetime"),
        categories=tuple(Category(name, tuple(v for v, _ in seen[name].items.top(MAX_CATEGORIES)))
                         for name, kind in kinds.items() if kind == "categorical"),
        texts=tuple(Text.fit(name, seen[name]) for name, kind in kinds.items() if kind == "text"),
        image_column=images[0] if images else None,
        image=_shape(seen[images[0]], image or ImageSpec()) if images else None)


def _shape(seen: ColumnSummary, image: ImageSpec) -> Shape:
    channels, height, width = seen.first[1] if seen.first is not None else (1, 28, 28)
    return (image.channels or channels, image.height or height, image.width or width)
