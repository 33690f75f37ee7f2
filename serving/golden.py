"""Golden rows: what a version must answer, worked out before it may answer anybody.

A process of its own loads the bundle and scores made-up rows, so that a model that raises, hangs or
takes the process down does it there. Each replica must then give the same answers.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raymill.errors import ArtifactError, Problem, RaymillError

from .loading import load_bundle
from .openapi import example_row
from .order import Order, write_private

if TYPE_CHECKING:
    from raymill.data.contract import ColumnRule, Contract

    from .scorer import PredictorLike

COUNT = 16
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4  # another device may round otherwise


def made_up(contract: Contract) -> pa.Table:
    """`COUNT` conformed rows that go through the columns' ranges and values."""
    free = without_patterns(contract)
    base = example_row(free)
    rows = [{name: _value(free.columns[name], base[name], index) for name in base}
            for index in range(COUNT)]
    return free.from_rows(rows)


def without_patterns(contract: Contract) -> Contract:
    """The contract as made-up rows can keep it: texts that match a pattern can't be made up."""
    document = contract.model_dump(mode="json")
    for rule in document["columns"].values():
        rule["pattern"] = None
    return type(contract).model_validate(document)


def _value(rule: ColumnRule, example: Any, index: int) -> Any:
    if rule.nullable and index == COUNT - 1:
        return None
    if rule.values and (rule.closed or not rule.sensitive):
        return rule.values[index % len(rule.values)]
    if rule.type not in ("int64", "float64"):
        return example
    low = rule.min if isinstance(rule.min, int | float) else None
    high = rule.max if isinstance(rule.max, int | float) else None
    if low is None or high is None:
        low, high = (low, low + COUNT) if low is not None else (
            (high - COUNT, high) if high is not None else (-COUNT / 2, COUNT / 2))
    value = low + (high - low) * index / (COUNT - 1)
    return min(max(math.ceil(low), round(value)), math.floor(high)) if rule.type == "int64" else value


def answers(contract: Contract, predictor: PredictorLike) -> dict[str, list[Any]]:
    """What the model says of the made-up rows.

    Raises:
        ArtifactError: not what the contract promises, or not finite.
    """
    given = predictor.predict(made_up(contract))
    wanted = ["prediction", *(f"probability_{each}" for each in contract.classes or ())]
    if given.column_names != wanted or len(given) != COUNT:
        raise ArtifactError(Problem(rule=f"a model answers {', '.join(wanted)} for each row",
                                    got=", ".join(given.column_names)))
    for name in wanted:
        column = given.column(name)
        if pa.types.is_floating(column.type) and not np.isfinite(column.to_numpy()).all():
            raise ArtifactError(f"a model's answers are finite, but {name} is not on made-up rows")
    if contract.classes and not {*given.column("prediction").to_pylist()} <= {*contract.classes}:
        raise ArtifactError("a model predicts one of its contract's classes, but got another")
    return {name: given.column(name).to_pylist() for name in wanted}


def check_same(here: dict[str, list[Any]], golden: dict[str, list[Any]]) -> None:
    """Raises ArtifactError when numbers differ by more than another device's rounding."""
    for name, values in golden.items():
        if not all(isinstance(value, float) for value in values):
            continue
        if not np.allclose(here[name], values, rtol=_RELATIVE, atol=_ABSOLUTE):
            raise ArtifactError(f"a replica must answer golden rows as they were answered offline, "
                                f"but {name} differs")


def main(order_file: str, result_file: str) -> int:
    """Work out the golden answers of an order's bundle; the result holds them, or the cause."""
    try:
        contract, predictor = load_bundle(Order.read(Path(order_file)))
        result: dict[str, Any] = {"answers": answers(contract, predictor),
                  "contract": contract.model_dump(mode="json")}
    except Exception as error:  # noqa: BLE001 - whatever a model does is the cause of its refusal
        told = str(error) if isinstance(error, RaymillError) else f"{type(error).__name__}: {error}"
        result = {"cause": told}
    write_private(Path(result_file), json.dumps(result))
    return 0 if "answers" in result else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
