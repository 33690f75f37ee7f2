"""Splits: who goes where, the same on every run and however the rows are cut into blocks."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raymill.data.conform import FILE, ROW
from raymill.data.contract import ColumnRule, Contract
from raymill.data.spec import DataSpec
from raymill.data.split import GAP, Counts, Plan, assign, check_sizes, plan
from raymill.errors import DataError, SpecError

N = 20_000
DAY_US = 86_400_000_000


@pytest.fixture
def contract() -> Contract:
    return Contract(target="y", task="binary", classes=["no", "yes"], columns={
        "x": ColumnRule(type="float64", kind="numeric"),
        "who": ColumnRule(type="string", kind="ignore"),
        "at": ColumnRule(type="timestamp", kind="ignore"),
        "y": ColumnRule(type="string", kind="categorical", values=["no", "yes"], closed=True)})


@pytest.fixture
def table() -> pa.Table:
    """Two files; 2 % of class yes; 500 people; a hundred days in no order."""
    random = np.random.default_rng(3)
    return pa.table({
        "x": random.normal(size=N), "who": [f"p{i}" for i in random.integers(0, 500, N)],
        "at": pa.array(random.integers(0, 100 * DAY_US, N), pa.timestamp("us")),
        "y": np.where(random.random(N) < 0.02, "yes", "no"),
        FILE: np.repeat(np.array([0, 1], np.int32), N // 2),
        ROW: np.tile(np.arange(1, N // 2 + 1), 2)})


def spec(**split: Any) -> DataSpec:
    return DataSpec(source="-", target="y", time="at", group="who", split=split)


def codes(table: pa.Table, layout: Plan, blocks: int = 1) -> np.ndarray[Any, Any]:
    """The split of each row, counted in `blocks` parts as tasks do."""
    counts = Counts(layout)
    size = -(-len(table) // blocks)
    parts = [table.slice(low, size) for low in range(0, len(table), size)]
    for part in parts:
        found = Counts(layout)
        found.add(part)
        counts.merge(pickle.loads(pickle.dumps(found)))
    cuts = counts.cuts()
    return np.concatenate([assign(part, layout, cuts) for part in parts])


@pytest.mark.parametrize("by", ["random", "stratified", "group", "time"])
def test_every_row_goes_to_one_split_of_about_its_share(
    contract: Contract, table: pa.Table, by: str
) -> None:
    found = codes(table, plan(spec(by=by, train=0.6, validation=0.3, test=0.1), contract))
    shares = np.bincount(found, minlength=4) / N
    loose = 0.05 if by == "group" else 0.005
    assert shares[:3] == pytest.approx([0.6, 0.3, 0.1], abs=loose)
    assert shares[GAP] == 0


@pytest.mark.parametrize("by", ["random", "stratified", "group", "time"])
def test_the_cut_into_blocks_does_not_matter(
    contract: Contract, table: pa.Table, by: str
) -> None:
    layout = plan(spec(by=by), contract)
    one, seven = codes(table, layout), codes(table, layout, blocks=7)
    assert (one != seven).mean() < (0.002 if by == "time" else 1e-12)


def test_another_seed_is_another_split(contract: Contract, table: pa.Table) -> None:
    one = codes(table, plan(spec(by="random"), contract))
    other = codes(table, plan(spec(by="random", seed=1), contract))
    assert 0.3 < (one != other).mean() < 0.6


def test_stratified_shares_hold_within_each_class(contract: Contract, table: pa.Table) -> None:
    found = codes(table, plan(spec(by="stratified"), contract))
    rare = found[np.array(table["y"].to_pylist()) == "yes"]
    assert np.bincount(rare, minlength=3) / len(rare) == pytest.approx([0.7, 0.15, 0.15], abs=0.02)


def test_a_group_is_never_torn(contract: Contract, table: pa.Table) -> None:
    found = codes(table, plan(spec(by="group"), contract))
    seen: dict[str, set[int]] = {}
    for who, code in zip(table["who"].to_pylist(), found.tolist(), strict=True):
        seen.setdefault(who, set()).add(code)
    assert all(len(where) == 1 for where in seen.values())


def test_time_runs_from_train_to_test_with_gaps_between(
    contract: Contract, table: pa.Table
) -> None:
    found = codes(table, plan(spec(by="time", gap="2d"), contract))
    at = table["at"].cast(pa.int64()).to_numpy()
    assert at[found == 0].max() + 2 * DAY_US <= at[found == 1].min()
    assert at[found == 1].max() + 2 * DAY_US <= at[found == 2].min()
    assert (found == GAP).mean() == pytest.approx(0.04, abs=0.01)
    assert set(np.unique(found)) == {0, 1, 2, GAP}


def test_given_test_files_leave_their_share_to_the_others(contract: Contract) -> None:
    given = DataSpec(source="-", test="-", target="y",
                     split={"train": 0.6, "validation": 0.2, "test": 0.2})
    layout = plan(given, contract)
    assert layout.parts == (0, 1)
    assert layout.shares == pytest.approx((0.75, 0.25))
    assert layout.by == "stratified"


def test_auto_goes_by_time_then_group(contract: Contract) -> None:
    assert plan(spec(), contract).by == "time"
    assert plan(DataSpec(source="-", target="y", group="who"), contract).by == "group"


def test_an_empty_split_is_refused(contract: Contract) -> None:
    layout = plan(spec(by="random"), contract)
    with pytest.raises(DataError, match="validation has none"):
        check_sizes({"train": 5, "validation": 0, "test": 2}, layout)


@pytest.mark.parametrize(("said", "why"), [
    ({"time": "at", "split": {"by": "random", "gap": "1d"}}, "a gap is for splits by time"),
    ({"group": "who", "split": {"gap": "1d"}}, "a gap is for splits by time"),
    ({"task": "regression", "split": {"by": "stratified"}}, "stratified is for classes"),
    ({"split": {"train": 0.8, "validation": 0.2, "test": 0}}, "set data.test"),
])
def test_options_that_would_do_nothing_are_refused(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        DataSpec.model_validate({"source": "-", "target": "y"} | said)


def test_test_files_go_with_any_share_of_test() -> None:
    for shares in ({"train": 0.8, "validation": 0.2, "test": 0}, {}):
        DataSpec.model_validate({"source": "-", "target": "y", "test": "t", "split": shares})
    DataSpec.model_validate({"source": "-", "target": "y", "time": "at", "split": {"gap": "1d"}})


def test_numbers_are_not_stratified(contract: Contract) -> None:
    numbers = Contract(target="x", task="regression", columns=contract.columns)
    with pytest.raises(SpecError, match="stratified is for classes"):
        plan(spec(by="stratified"), numbers)
