"""The transform: what it learns of training rows, and what it makes of any rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.preprocessing import QuantileTransformer

from raymill.data.contract import ColumnRule, Contract
from raymill.data.spec import ImageSpec
from raymill.data.stats import merge, of_table
from raymill.data.transform import Transform, from_summaries

N = 5000


def number(nullable: bool = True) -> ColumnRule:
    return ColumnRule(type="float64", kind="numeric", nullable=nullable)


@pytest.fixture
def contract() -> Contract:
    word = ColumnRule(type="string", kind="categorical", nullable=True)
    return Contract(target="y", task="regression", columns={
        "wide": number(), "ties": number(False), "constant": number(False), "word": word,
        "flag": ColumnRule(type="bool", kind="categorical"),
        "code": ColumnRule(type="int64", kind="categorical"),
        "at": ColumnRule(type="timestamp", kind="datetime", nullable=True), "y": number(False)})


@pytest.fixture
def table() -> pa.Table:
    random = np.random.default_rng(0)
    wide = random.lognormal(0, 2, N)
    return pa.table({
        "wide": pa.array(np.where(random.random(N) < 0.1, np.nan, wide), from_pandas=True),
        "ties": np.where(random.random(N) < 0.8, 0.0, random.normal(5, 1, N)),
        "constant": np.full(N, 3.0),
        "word": pa.array(random.choice(["a", "b", "c", None], N, p=[0.5, 0.3, 0.1, 0.1])),
        "flag": pa.array(random.random(N) < 0.3), "code": random.integers(3, 6, N),
        "at": pa.array((random.random(N) * 3e13).astype("int64"), pa.timestamp("us")),
        "y": random.normal(10, 2, N)})


def fitted(contract: Contract, *tables: pa.Table, image: ImageSpec | None = None) -> Transform:
    seen: dict[str, Any] = {}
    for part in tables:
        merge(seen, of_table(part, contract))
    return from_summaries(seen, contract, image)


def column(transform: Transform, table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    return transform.apply(table)["numeric"][:, transform.schema.numeric.index(name)]


def test_shapes_and_types_are_those_of_the_schema(contract: Contract, table: pa.Table) -> None:
    transform = fitted(contract, table)
    arrays = transform.apply(table)
    assert arrays["numeric"].shape == (N, len(transform.schema.numeric))
    assert arrays["numeric"].dtype == np.float32
    assert arrays["categorical"].shape == (N, 3)
    assert arrays["categorical"].dtype == np.int64
    assert "image" not in arrays
    assert np.isfinite(arrays["numeric"]).all()
    assert transform.targets(table).dtype == np.float32


def test_its_state_is_json_and_whole(contract: Contract, table: pa.Table, tmp_path: Path) -> None:
    transform = fitted(contract, table)
    path = tmp_path / "transform.json"
    transform.save(path)
    json.loads(path.read_text())
    again = Transform.load(path)
    assert again == transform
    for name, array in transform.apply(table).items():
        assert np.array_equal(again.apply(table)[name], array)


def test_a_batch_of_one_equals_its_row_of_a_large_one(
    contract: Contract, table: pa.Table
) -> None:
    transform = fitted(contract, table)
    whole = transform.apply(table)
    for index in (0, 17, N - 1):
        one = transform.apply(table.slice(index, 1))
        assert all(np.array_equal(one[name][0], whole[name][index]) for name in whole)


def test_numbers_become_normal_as_scikit_learn_makes_them(
    contract: Contract, table: pa.Table
) -> None:
    ours = column(fitted(contract, table), table, "wide")
    values = table["wide"].to_numpy()
    known = ~np.isnan(values)
    peer = QuantileTransformer(n_quantiles=256, output_distribution="normal", subsample=None)
    theirs = peer.fit_transform(values[known][:, None])[:, 0]
    middle = np.abs(theirs) < 2.5
    assert np.abs(ours[known][middle] - theirs[middle]).max() < 0.05
    assert abs(ours[known].std() - 1) < 0.05


def test_values_beyond_the_ends_stay_in_bounds_and_in_order(
    contract: Contract, table: pa.Table
) -> None:
    transform = fitted(contract, table)
    steps = [-1e12, 0.0, 1e-3, 1.0, 1e3, 1e12]
    rows = table.slice(0, 6).set_column(0, "wide", pa.array(steps))
    made = column(transform, rows, "wide")
    assert (np.diff(made) >= 0).all()
    assert np.abs(made).max() <= 5.2 + 1e-6


def test_a_constant_number_is_zero(contract: Contract, table: pa.Table) -> None:
    assert (column(fitted(contract, table), table, "constant") == 0).all()


def test_missing_numbers_take_the_median_and_a_flag(
    contract: Contract, table: pa.Table
) -> None:
    transform = fitted(contract, table)
    missing = np.isnan(table["wide"].to_numpy())
    assert np.array_equal(column(transform, table, "wide:missing") == 1, missing)
    assert np.abs(column(transform, table, "wide")[missing]).max() < 0.02
    assert "ties:missing" not in transform.schema.numeric


def test_categories_are_coded_by_how_often_they_stand(
    contract: Contract, table: pa.Table
) -> None:
    transform = fitted(contract, table)
    assert transform.schema.categorical == (("word", 5), ("flag", 4), ("code", 5))
    words = pa.array(["a", "b", "c", "never seen", None])
    few = table.slice(0, 5).set_column(table.column_names.index("word"), "word", words)
    assert transform.apply(few)["categorical"][:, 0].tolist() == [2, 3, 4, 0, 1]
    many = pa.concat_tables([few] * 100)
    assert transform.apply(many)["categorical"][:5, 0].tolist() == [2, 3, 4, 0, 1]


def test_dates_become_angles_and_elapsed_time(contract: Contract, table: pa.Table) -> None:
    transform = fitted(contract, table)
    hour = 2 * np.pi * ((table["at"].cast(pa.int64()).to_numpy() // 3_600_000_000) % 24) / 24
    assert np.allclose(column(transform, table, "at:hour_sin"), np.sin(hour), atol=1e-6)
    elapsed = column(transform, table, "at:elapsed")
    assert elapsed.min() == -1
    assert elapsed.max() == 1


def test_fitting_in_parts_gives_the_same(contract: Contract, table: pa.Table) -> None:
    whole = fitted(contract, table)
    parts = fitted(contract, *[table.slice(low, 500) for low in range(0, N, 500)])
    assert parts.categories == whole.categories
    assert parts.numbers == whole.numbers
    assert parts.target_mean == pytest.approx(whole.target_mean, rel=1e-12)
    assert parts.target_std == pytest.approx(whole.target_std, rel=1e-12)


def test_targets_are_standardised_or_class_indices(contract: Contract, table: pa.Table) -> None:
    transform = fitted(contract, table)
    y = table["y"].to_numpy()
    back = transform.targets(table) * transform.schema.target_std + transform.schema.target_mean
    assert np.allclose(back, y, atol=1e-5)
    classes = Contract(target="word", task="multiclass", classes=["c", "a", "b"], columns={
        "y": number(False), "word": ColumnRule(type="string", kind="categorical")})
    known = table.filter(table["word"].is_valid())
    expected = [["c", "a", "b"].index(word) for word in known["word"].to_pylist()]
    assert fitted(classes, known).targets(known).tolist() == expected


def test_images_are_brought_to_one_shape(png: Callable[..., bytes]) -> None:
    contract = Contract(target="y", task="regression", columns={
        "picture": ColumnRule(type="binary", kind="image", nullable=True), "y": number(False)})
    table = pa.table({"picture": [png(0, 8, 6), png(1, 16, 12, 3), None], "y": [1.0, 2.0, 3.0]})
    transform = fitted(contract, table)
    assert transform.schema.image == (1, 8, 6)
    images = transform.apply(table)["image"]
    assert images.shape == (3, 1, 8, 6)
    assert images.dtype == np.uint8
    assert (images[2] == 0).all()
    stated = fitted(contract, table, image=ImageSpec(height=4, width=4, channels=3))
    assert stated.apply(table)["image"].shape == (3, 3, 4, 4)
