"""Two versions in one endpoint: keys of every protocol, copies for a shadow, named versions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raymill.data.contract import Contract
from raymill.serving.endpoint import _endpoint
from raymill.serving.metrics import Metrics
from raymill.serving.model import Model
from raymill.serving.plan import STATS, Plan, Role, Variant
from raymill.serving.spec import ServingSpec
from raymill.serving.tally import Tally, together
from raymill.serving.variants import Variants

from .test_app import JSON, Client, problem
from .test_plan import changed
from .test_protocols import CSV, STREAM, stream

USERS = [f"u{number}" for number in range(12)]


def variant(version: int, role: Role) -> Variant:
    return Variant(version, "d", "b", role)


class Pair:
    """An endpoint of version 1, and version 2 with a role and perhaps another contract."""

    def __init__(self, contract: Contract, other: Contract, predictor: Any, role: Role,
                 **plan: Any) -> None:
        spec = ServingSpec()
        one, two = (Model("m", version, spec, each, predictor)
                    for version, each in ((1, contract), (2, other)))
        self.variants = Variants(Plan(1, (variant(1, "champion"),)), one)
        self.ask = Client(_endpoint("m", spec, self.variants, Metrics("m"), None, None))
        self.variants.follow(
            Plan(2, (variant(1, "champion"), variant(2, role)), measured=True, salt="s", **plan),
            {1: one, 2: two})

    def sums(self, folder: Path) -> dict[int, Tally]:
        (folder / STATS).mkdir(exist_ok=True)
        assert self.variants.now.tallies is not None
        self.variants.now.tallies.write(folder)
        return together(folder, 2)


def requests(user: str) -> list[tuple[str, dict[str, Any]]]:
    """The same row in every protocol, with the ignored column `id`."""
    row = {"x": 7.0, "code": "AB", "id": user}
    tensors = [{"name": name, "datatype": "FP64" if name == "x" else "BYTES", "shape": [1],
                "data": [value]} for name, value in row.items()]
    table = pa.table({name: [value] for name, value in row.items()})
    return [
        ("/predict", {"json": {"rows": [row]}}),
        ("/predict", {"content": stream(table), "headers": STREAM}),
        ("/v2/models/m/infer", {"json": {"inputs": tensors}}),
        ("/invocations", {"json": {"dataframe_records": [row]}}),
        ("/invocations", {"content": f"x,code,id\n7.0,AB,{user}\n", "headers": CSV}),
    ]


def test_a_column_leads_to_one_version_in_every_protocol(
    contract: Contract, predictor: Any, tmp_path: Path
) -> None:
    pair = Pair(contract, contract, predictor, "challenger", share=0.5, key="id", column=True)
    by_user = {}
    for user in USERS:
        answers = [pair.ask("POST", path, **request) for path, request in requests(user)]
        assert {answer.status_code for answer in answers} == {200}
        (by_user[user],) = {answer.headers["x-raymill-version"] for answer in answers}
    assert {*by_user.values()} == {"1", "2"}
    sums = pair.sums(tmp_path)
    assert sums[1].requests + sums[2].requests == 5 * len(USERS) == (
        sums[1].scored + sums[2].scored)


def test_a_version_with_another_contract_reads_for_itself(
    contract: Contract, predictor: Any
) -> None:
    strict = changed(contract, x={"max": 5.0})
    pair = Pair(contract, strict, predictor, "challenger", share=1.0, key="id", column=True)
    refused = pair.ask.predict([{"x": 7.0, "code": "AB", "id": "u"}])
    problem(refused, 422)
    assert refused.headers["x-raymill-version"] == "2"
    assert pair.ask.predict([{"x": 7.0, "code": "AB"}]).json()["version"] == 1


@pytest.mark.parametrize("bound", [10.0, 20.0])
def test_a_shadow_scores_copies_by_its_own_contract(
    contract: Contract, predictor: Any, tmp_path: Path, bound: float
) -> None:
    pair = Pair(contract, changed(contract, x={"max": bound}), predictor, "shadow")
    for _ in range(5):
        assert pair.ask.predict([{"x": 7.0, "code": "AB"}]).json()["version"] == 1
    for _ in range(200):
        shadow = pair.sums(tmp_path).get(2, Tally())
        if shadow.copies == 5:
            break
        time.sleep(0.05)
    assert (shadow.copies, shadow.agreed, shadow.failed, shadow.dropped) == (5, 5, 0, 0)


def test_a_path_names_a_version_and_such_answers_are_not_compared(
    contract: Contract, predictor: Any, tmp_path: Path
) -> None:
    pair = Pair(contract, contract, predictor, "challenger", share=0.5)
    _, request = requests("u")[2]
    for version in ("1", "2"):
        answer = pair.ask("POST", f"/v2/models/m/versions/{version}/infer", **request)
        assert answer.json()["model_version"] == version
    problem(pair.ask("POST", "/v2/models/m/versions/3/infer", **request), 404)
    assert pair.ask("GET", "/v2/models/m").json()["versions"] == ["1", "2"]
    assert pair.sums(tmp_path) == {}


def test_what_a_version_fails_at_is_counted_for_it(
    contract: Contract, predictor: Any, tmp_path: Path
) -> None:
    pair = Pair(contract, contract, predictor, "challenger", share=1.0)
    problem(pair.ask.predict([{"x": 11, "code": "AB"}]), 422)
    problem(pair.ask("POST", "/predict", content=b"{", headers=JSON), 400)
    assert pair.ask.predict([{"x": 1, "code": "AB"}]).status_code == 200
    (sums,) = pair.sums(tmp_path).values()
    assert (sums.requests, sums.failed, sums.scored) == (3, 1, 1)
    assert json.dumps(sums.sums) == '{"probability_fraud": 0.1}'
