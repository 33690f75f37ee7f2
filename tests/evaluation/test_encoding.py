from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from raymill.evaluation import baselines
from raymill.evaluation.columns import columns, density
from raymill.evaluation.encoding import CATEGORIES, Encoding, flatten

TRAIN = pa.table({
    "n": pa.array([1.5, None, 3.0, 4.0]),
    "flag": pa.array([True, False, None, True]),
    "c": pa.array(["a", "b", "a", None]),
    "when": pa.array([dt.datetime(2024, 2, 29, 13, tzinfo=dt.UTC)] * 4, pa.timestamp("ms", "UTC")),
})
KINDS = {"n": "numeric", "flag": "numeric", "c": "categorical", "when": "datetime"}


# Null numbers are NaN, bools are 0 and 1, dates give elapsed time, month, weekday and hour.
def test_numbers_and_dates() -> None:
    matrix, mask = Encoding.fit(TRAIN, KINDS, None).matrix(TRAIN)
    assert mask.tolist() == [False] * 6 + [True]
    assert np.isnan(matrix[1, 0]) and np.isnan(matrix[2, 1])
    assert matrix[0, 3:6].tolist() == [2, 3, 13]


# Categories are coded by frequency; missing is 0, one never seen is 1.
def test_categories() -> None:
    encoding = Encoding.fit(TRAIN, KINDS, None)
    later = TRAIN.set_column(2, "c", pa.array(["b", "z", None, "a"]))
    assert encoding.matrix(TRAIN)[0][:, -1].tolist() == [2, 3, 2, 0]
    assert encoding.matrix(later)[0][:, -1].tolist() == [3, 1, 0, 2]


# More categories than histogram boosting takes: the rare ones share a code.
def test_many_categories_fit_boosting() -> None:
    values = [f"c{i}" for i in range(400)] * 2
    table = pa.table({"c": pa.array(values)})
    encoding = Encoding.fit(table, {"c": "categorical"}, None)
    codes = encoding.matrix(table)[0][:, 0]
    assert codes.max() == CATEGORIES and (codes == 1).any()
    y = np.arange(800) % 2
    fitted = baselines.fit("boosting", "binary", table, y, encoding, 2, "roc_auc")
    assert fitted.scores(table).shape == (800,)


def test_images_are_averaged() -> None:
    images = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    assert (flatten(images, 2)[0] * 255).tolist() == pytest.approx([2.5, 4.5, 10.5, 12.5])
    assert flatten(images, None).shape == (1, 16)


# A class that the fitted rows don't hold has probability 0, in its own column.
def test_absent_classes_keep_their_column() -> None:
    table = pa.table({"x": np.arange(60.0)})
    encoding = Encoding.fit(table, {"x": "numeric"}, None)
    y = np.where(np.arange(60) < 30, 0, 2)
    for name in ("constant", "linear", "boosting"):
        scores = baselines.fit(name, "multiclass", table, y, encoding, 3, "accuracy").scores(table)
        assert scores.shape == (60, 3) and (scores[:, 1] == 0).all()
        assert scores.sum(axis=1) == pytest.approx(1)


# For mae the best constant is the median.
def test_the_constant_suits_the_metric() -> None:
    table, y = pa.table({"x": np.arange(4.0)}), np.array([0.0, 0.0, 0.0, 100.0])
    encoding = Encoding.fit(table, {"x": "numeric"}, None)
    for metric, value in (("rmse", 25), ("mae", 0)):
        fitted = baselines.fit("constant", "regression", table, y, encoding, 0, metric)
        assert fitted.scores(table).tolist() == [value] * 4


# Quantile edges become shares that sum to one, ties included.
@pytest.mark.parametrize("values", [np.arange(1000), np.repeat([0, 0, 0, 5], 250)])
def test_densities_sum_to_one(values: np.ndarray) -> None:
    heights, titles = density(np.quantile(values, np.linspace(0, 1, 21)).tolist())
    assert sum(heights) == pytest.approx(1) and min(heights) >= 0
    assert len(titles) == len(heights)


# A sensitive column has no values in its profile, and its line still stands.
def test_a_column_without_values() -> None:
    view = columns({"columns": {"ssn": {"kind": "ignore", "count": 10, "nulls": 1, "distinct": 9}}})
    assert view[0].name == "ssn" and view[0].missing == "10.0%" and view[0].spark == ""


# Timestamps, which a profile counts in microseconds, are shown as dates.
def test_a_column_of_dates() -> None:
    edges = [1.7e15, 1.71e15, 1.72e15]
    said = {"kind": "datetime", "type": "timestamp", "count": 3, "nulls": 0, "mean": 1.71e15,
            "min": edges[0], "max": edges[-1], "edges": edges}
    view = columns({"columns": {"at": said}})[0]
    assert view.range == "2023-11-14 22:13 to 2024-07-03 09:46"
    assert "from 2024-0" in view.spark


# Texts are words by TF-IDF for the linear baseline, and their main directions for boosting.
@pytest.mark.parametrize("name", ["linear", "boosting"])
def test_baselines_read_texts(name: str) -> None:
    draw = np.random.default_rng(0)
    y = draw.integers(0, 2, 400)
    texts = [" ".join(draw.permutation([*draw.choice(list("abcdefgh"), 4), "late" if late else "ok"]))
             for late in y]
    table = pa.table({"t": pa.array([*texts[:399], None]), "c": pa.array(["x", "y"] * 200)})
    encoding = Encoding.fit(table, {"t": "text", "c": "categorical"}, None)
    fitted = baselines.fit(name, "binary", table, y, encoding, 2, "roc_auc")
    assert fitted.fitted_on == 400
    assert ((fitted.scores(table)[:399] > 0.5) == y[:399]).mean() > 0.95
