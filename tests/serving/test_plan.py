"""Plans, keys, contracts and golden rows, without a service."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from raymill.data.contract import ColumnRule, Contract
from raymill.errors import ArtifactError
from raymill.serving import golden
from raymill.serving.compatible import other_answers, refused_rows
from raymill.serving.follower import MOST_SHARE, Follower
from raymill.serving.plan import ACKS, GOLDEN, Plan, Variant, bucket, missing_share, tell_wanted
from raymill.serving.spec import ServingSpec
from raymill.serving.variants import Routing, Variants

CHAMPION, CHALLENGER = (Variant(1, "d", "b", "champion"), Variant(2, "e", "c", "challenger"))


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(3, (CHAMPION, CHALLENGER), share=0.1, key="user", column=True, salt="s")
    assert Plan.read(tmp_path) is None
    plan.write(tmp_path)
    assert Plan.read(tmp_path) == plan and plan.champion == CHAMPION


def test_replicas_that_are_missing_are_shared_by_those_that_live(tmp_path: Path) -> None:
    (tmp_path / ACKS).mkdir()
    assert missing_share(tmp_path) == 1
    tell_wanted(tmp_path, 6)
    assert missing_share(tmp_path) == 6  # the first one, which is about to be ready
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    for pid in (os.getpid(), *(each.pid for each in sleepers)):
        (tmp_path / ACKS / f"{pid}.json").write_text("{}")
    assert missing_share(tmp_path) == 2
    sleepers[0].kill()
    sleepers[0].wait()
    assert missing_share(tmp_path) == 3
    tell_wanted(tmp_path, 1)
    assert missing_share(tmp_path) == 1
    sleepers[1].kill()
    sleepers[1].wait()


def test_a_replica_holds_more_while_others_are_missing(tmp_path: Path) -> None:
    for name in (ACKS, GOLDEN):
        (tmp_path / name).mkdir()
    plan = Plan(1, (CHAMPION,))
    plan.write(tmp_path)
    made: Any = SimpleNamespace(version=1, batcher=SimpleNamespace(share=1.0),
                                scorer=SimpleNamespace(variant=""), variant="champion")
    follower = Follower(tmp_path, lambda variant, expected: made)
    follower.start(plan)
    for wanted, share in ((2, 2), (1, 1), (9, MOST_SHARE)):
        tell_wanted(tmp_path, wanted)
        end = time.monotonic() + 10
        while made.batcher.share != share and time.monotonic() < end:
            time.sleep(0.02)
        assert made.batcher.share == share


def test_keys_fall_evenly_and_stay_where_they_are_when_the_share_grows() -> None:
    places = {str(key): bucket("salt", str(key)) for key in range(20_000)}
    shares = (0.01, 0.1, 0.5)
    chosen = [{key for key, place in places.items() if place < share} for share in shares]
    for share, keys in zip(shares, chosen, strict=True):
        assert len(keys) / len(places) == pytest.approx(share, rel=0.15)
    assert chosen[0] < chosen[1] < chosen[2]
    assert bucket("other", "1") != places["1"]


class Named:
    """As much of a model as a route needs."""

    def __init__(self, version: int) -> None:
        self.version = version


def routing(share: float, key: str, column: bool) -> Routing:
    plan = Plan(3, (CHAMPION, CHALLENGER), share=share, key=key, column=column, salt="s")
    one, two = Named(1), Named(2)
    return Routing(plan, {1: one, 2: two}, one, two)  # type: ignore[dict-item,arg-type]


def test_rows_of_one_request_are_answered_by_one_version() -> None:
    route = routing(0.5, "user", True)
    alone = [route.by_values([key]).version for key in range(100)]
    assert set(alone) == {1, 2}
    assert alone == [route.by_values([key, key]).version for key in range(100)]
    assert alone == [route.by_values([float(key)]).version for key in range(100)]
    assert {route.by_values(values).version for values in (
        [1, 2], [None], [1, None], [], None)} == {1}


class Answering:
    def __init__(self, **columns: Any) -> None:
        self._columns = columns

    def predict(self, table: pa.Table) -> pa.Table:
        return pa.table({name: [value] * len(table) for name, value in self._columns.items()})


GOOD = {"prediction": "fine", "probability_fine": 0.75, "probability_fraud": 0.25}


def test_golden_rows_keep_the_contract_and_go_through_its_values(contract: Contract) -> None:
    rows = golden.made_up(contract)
    assert rows.column_names == contract.features and len(rows) == golden.COUNT
    assert rows.column("x").to_pylist()[0] == 0 and rows.column("x").to_pylist()[-1] == 10
    assert {*rows.column("colour").to_pylist()} == {"red", "blue", None}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [({"probability_fraud": float("nan")}, "finite"), ({"prediction": "maybe"}, "classes"),
     ({"more": 1.0}, "answers prediction")],
)
def test_answers_that_are_not_what_was_promised_are_refused(
    contract: Contract, changes: dict[str, Any], cause: str
) -> None:
    assert golden.answers(contract, Answering(**GOOD))["prediction"] == ["fine"] * golden.COUNT
    with pytest.raises(ArtifactError, match=cause):
        golden.answers(contract, Answering(**GOOD | changes))


def test_another_answer_than_offline_is_refused() -> None:
    golden.check_same({"p": [0.5, 0.25]}, {"p": [0.50001, 0.25]})
    with pytest.raises(ArtifactError, match="offline"):
        golden.check_same({"p": [0.5, 0.25]}, {"p": [0.6, 0.25]})


def changed(contract: Contract, **rules: dict[str, Any]) -> Contract:
    columns = {name: rule.model_copy(update=rules.get(name, {}))
               for name, rule in contract.columns.items()}
    return Contract.model_validate(contract.model_dump() | {"columns": {
        name: rule.model_dump() for name, rule in columns.items()}})


@pytest.mark.parametrize(
    ("rules", "why"),
    [({"x": {"max": 9.0}}, "greatest"), ({"x": {"min": 1.0}}, "least"),
     ({"n": {"nullable": False}}, "empty"), ({"colour": {"values": ["red"]}}, "fewer"),
     ({"x": {"type": "int64"}}, "int64"), ({"code": {"pattern": "[A-Z]"}}, "pattern")],
)
def test_a_contract_that_takes_less_is_told_by_its_columns(
    contract: Contract, rules: dict[str, dict[str, Any]], why: str
) -> None:
    (found,) = refused_rows(contract, changed(contract, **rules))
    assert found.startswith(next(iter(rules))) and why in found


def test_a_contract_that_takes_more_is_no_matter(contract: Contract) -> None:
    wider = changed(contract, x={"max": 99.0}, code={"pattern": None},
                    colour={"values": ["red", "blue", "green"]})
    assert refused_rows(contract, wider) == [] == other_answers(contract, wider)
    columns = contract.columns | {
        "new": ColumnRule(type="float64", kind="numeric", nullable=True)}
    more = contract.model_copy(update={"columns": columns})
    assert refused_rows(contract, more) == []
    assert refused_rows(more, contract) == ["new: it knows no such column"]
    assert other_answers(contract, contract.model_copy(update={"classes": ["a", "b"]}))


def test_a_replica_follows_as_much_of_a_plan_as_it_has_loaded(contract: Contract) -> None:
    from raymill.serving.model import Model

    one, two = (Model("m", version, ServingSpec(), contract, Answering(**GOOD))
                for version in (1, 2))
    variants = Variants(Plan(1, (CHAMPION,)), one)
    assert variants.now.alone
    plan = Plan(2, (CHAMPION, CHALLENGER), share=1.0)
    variants.follow(plan, {1: one})
    assert variants.now.alone and variants.now.plan.id == 2
    variants.follow(plan, {1: one, 2: two})
    assert not variants.now.alone and (one.variant, two.variant) == ("champion", "challenger")
    variants.follow(Plan(3, (Variant(2, "e", "c", "champion"),)), {2: two})
    assert variants.now.champion is two and two.variant == "champion"
