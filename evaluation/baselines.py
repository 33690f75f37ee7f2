"""Models that any model must be compared with: a constant, a linear one, gradient boosting."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .encoding import Encoding
from .measures import Array

ROWS = 200_000  # that a baseline is fitted on at most
CELLS = 20_000_000  # rows x columns (x classes) of a fit at most; an image is many columns
FILLED = 200  # cells of a row of hashed words, about, that are not zero
STEPS = 200
Labels = NDArray[np.generic]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline. `scores(table)` is `[N]` (binary, regression) or `[N, K]`."""

    name: str
    scores: Callable[[pa.Table], Array]
    fitted_on: int
    seconds: float
    note: str


def fit(
    name: str,
    task: str,
    table: pa.Table,
    y: Labels,
    encoding: Encoding,
    classes: int,
    metric: str,
    rows: int | None = None,
) -> Baseline:
    """Fit one baseline on training rows; rows beyond its cap are left out by a fixed draw.

    Args:
        name: constant, linear or boosting.
        table: conformed training rows.
        y: `[N]` class indices below `classes`, or values in the target's unit.
        metric: what the model is judged by; a constant for `mae` is the median.
        rows: how many training rows there are, where `table` is a draw of them.
    """
    started, rows = perf_counter(), rows or len(y)
    if name == "constant":
        value = _constant(task, y, classes, metric)
        scores = lambda chunk: np.repeat(value, len(chunk), axis=0)
        notes = [_CONSTANT[task], *_left_out(len(y), rows)]
        return Baseline(name, scores, len(y), perf_counter() - started, "; ".join(notes))
    small = name == "boosting"
    words = encoding.words.width if encoding.words is not None and not small else 0
    width = encoding.matrix(table.slice(0, 1), small)[0].shape[1] - words + min(words, FILLED)
    kept = _kept(len(y), width * (classes if small and classes > 2 else 1))
    features, mask = encoding.matrix(table.take(pa.array(kept)), small)
    images = encoding.pixels is not None
    model = _boosting(task, mask) if small else _linear(task, mask, images, words)
    label = y[kept]
    unsettled = _fit_quietly(model, features, label)
    notes = [_help(name, task)]
    if encoding.pixels is not None and small:
        notes.append(f"images averaged down to {width} numbers")
    if encoding.words is not None:
        notes.append("texts as their main directions" if small else "words by TF-IDF")
    notes += _left_out(len(kept), rows)
    if unsettled:
        notes.append(f"stopped after {STEPS} steps")
    scores = lambda chunk: _scores(task, model, encoding.matrix(chunk, small)[0], classes)
    return Baseline(name, scores, len(kept), perf_counter() - started, "; ".join(notes))


_CONSTANT = {
    "binary": "always the training share of the positive class",
    "multiclass": "always the training shares of the classes",
    "regression": "always the training mean (the median for mae)",
}


def _left_out(fitted: int, rows: int) -> list[str]:
    return [f"fitted on {fitted:,} of {rows:,} training rows"] if fitted < rows else []


def _help(name: str, task: str) -> str:
    if name == "boosting":
        return "scikit-learn histogram gradient boosting, defaults"
    kind = "ridge" if task == "regression" else "logistic"
    return f"scikit-learn {kind} regression, one-hot and standardised"


def _constant(task: str, y: Labels, classes: int, metric: str) -> NDArray[np.float64]:
    if task == "regression":
        centre = np.median if metric == "mae" else np.mean
        return np.array([float(centre(y.astype(np.float64)))])
    shares = np.bincount(y.astype(np.int64), minlength=classes) / len(y)
    return shares[1:2] if task == "binary" else shares[None, :]


def _kept(rows: int, width: int) -> NDArray[np.int64]:
    most = min(rows, ROWS, max(2000, CELLS // width))
    if most == rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _linear(task: str, mask: NDArray[np.bool_], images: bool, words: int) -> Any:
    """The last `words` columns are taken as they are; with any, the matrix is sparse."""
    plain = np.arange(len(mask)) < len(mask) - words
    full = [FunctionTransformer(_full)] if words else []
    numbers = make_pipeline(
        *full,
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    columns = ColumnTransformer([
        ("numbers", numbers, np.flatnonzero(~mask & plain)),
        ("categories", make_pipeline(*full, OneHotEncoder(handle_unknown="ignore")),
         np.flatnonzero(mask)),
        ("words", "passthrough", np.flatnonzero(~plain)),
    ])
    if task == "regression":
        return make_pipeline(columns, Ridge())
    return make_pipeline(columns, LogisticRegression(max_iter=STEPS, C=0.1 if images else 1.0))


def _full(matrix: Any) -> Any:
    return matrix.toarray()


def _boosting(task: str, mask: NDArray[np.bool_]) -> Any:
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    return kind(categorical_features=mask if mask.any() else None, random_state=0)


def _fit_quietly(model: Any, features: Array, y: Labels) -> bool:
    """Fit; whether it stopped before it settled.

    One core stays free: on a busy machine the spinning OpenMP threads of histogram boosting make
    it a hundred times slower.
    """
    threads = max(1, (os.cpu_count() or 1) - 1)
    with threadpool_limits(limits=threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(features, y)
    return any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


def _scores(task: str, model: Any, features: Array, classes: int) -> Array:
    if task == "regression":
        return np.asarray(model.predict(features), dtype=np.float64)
    known = np.asarray(model.classes_, dtype=np.int64)
    probabilities = np.zeros((features.shape[0], classes))
    probabilities[:, known] = model.predict_proba(features)
    return probabilities[:, 1] if task == "binary" else probabilities
