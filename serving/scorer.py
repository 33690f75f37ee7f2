"""Rows of a request to answers, through the bundle's contract and predictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from raymill.data.contract import Contract

_PROBABILITY = "probability_"


class PredictorLike(Protocol):
    """A conformed table in; `prediction` and, for classes, `probability_<class>` columns out."""

    def predict(self, table: pa.Table) -> pa.Table: ...


class Scorer:
    """Checks and scores many rows at once; the batcher's `Score`."""

    def __init__(self, contract: Contract, predictor: PredictorLike) -> None:
        self._contract, self._predictor = contract, predictor

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One `{"prediction": ..., "probability": {class: p}}` a row (no probability: a number).

        Raises:
            DataError: naming each row and field that breaks the contract.
        """
        table = self._predictor.predict(self._contract.from_rows(list(rows)))
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        predictions = columns["prediction"]
        classes = [name for name in columns if name.startswith(_PROBABILITY)]
        if not classes:
            return [{"prediction": value} for value in predictions]
        names = [name.removeprefix(_PROBABILITY) for name in classes]
        shares = zip(*(columns[name] for name in classes), strict=True)
        return [
            {"prediction": value, "probability": dict(zip(names, share, strict=True))}
            for value, share in zip(predictions, shares, strict=True)
        ]
