"""Puts an endpoint together: contract, model, batcher, pages and metrics, warm and ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .app import Endpoint
from .batcher import Batcher
from .metrics import Metrics
from .openapi import example_row, pages
from .scorer import PredictorLike, Scorer
from .spec import ServingSpec

if TYPE_CHECKING:
    from raymill.data.contract import Contract

_WARM_UP = 3


def build(
    name: str, version: int, spec: ServingSpec, contract: Contract, predictor: PredictorLike
) -> Endpoint:
    """The endpoint with its model warm."""
    _warm_up(contract, predictor, spec.max_batch_rows)
    score = Scorer(contract, predictor)
    metrics = Metrics(name, version)
    batcher = Batcher(
        score, max_rows=spec.max_batch_rows, max_waiting=spec.max_waiting, on_batch=metrics.batch
    )
    return Endpoint(name, version, batcher, pages(contract, name, version, spec), metrics, spec)


def _warm_up(contract: Contract, predictor: PredictorLike, max_rows: int) -> None:
    """Score made-up rows, few and many; a pattern can't be made up for, so it is left out."""
    document = contract.model_dump(mode="json")
    for rule in document["columns"].values():
        rule["pattern"] = None
    score = Scorer(type(contract).model_validate(document), predictor)
    row = example_row(contract)
    for count in [1] * _WARM_UP + [max_rows]:
        score([row] * count)
