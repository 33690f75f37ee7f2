"""Puts an endpoint together: contract, model, batcher, protocols, pages, guards; warm and ready."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .answers import Answer, Guard, Request, Route
from .app import Endpoint
from .batcher import Batcher
from .desk import Desk
from .feedback import Feedback
from .metrics import Metrics
from .openapi import example_row, pages
from .pages import page_routes
from .prediction_log import PredictionLog
from .protocols.arrow import ARROW, ArrowStream
from .protocols.mlflow import Invocations
from .protocols.native import Native
from .protocols.oip import OpenInference
from .scorer import PredictorLike, Rows, Scored, Scorer
from .spec import ServingSpec

if TYPE_CHECKING:
    from raymill.data.contract import Contract

_WARM_UP = 3


def build(
    name: str,
    version: int,
    spec: ServingSpec,
    contract: Contract,
    predictor: PredictorLike,
    guards: list[Guard] | None = None,
    home: Path | None = None,
) -> Endpoint:
    """The endpoint with its model warm. A new protocol is a file and a line here.

    Args:
        home: where answers are logged and labels kept, as `spec.log` says; None: nowhere.
    """
    _warm_up(contract, predictor, spec.max_batch_rows)
    metrics = Metrics(name, version)
    scorer = Scorer(contract, predictor, version)
    batcher: Batcher[Rows, Scored] = Batcher(
        scorer, max_rows=spec.max_batch_rows, max_waiting=spec.max_waiting,
        on_batch=metrics.batch,
    )
    log = _log(home, name, contract, spec, metrics)
    desk = Desk(scorer, batcher, metrics, spec, _unlogged if log is None else log.add)
    native, arrow = Native(contract, name), ArrowStream(contract, name)
    routes = [
        Route("POST", "/predict", desk.handler({b"application/json": native.read, ARROW: arrow.read})),
        *OpenInference(contract, name, version, desk).routes(),
        *Invocations(contract, desk).routes(),
        *page_routes(pages(contract, name, version, spec), metrics, name, version,
                     lambda: desk.stuck),
    ]

    if log is not None:
        routes += Feedback(contract, log.folder, spec, metrics.labels.inc).routes()

    def count(request: Request | None, answer: Answer, seconds: float) -> None:
        path = request.route.path if request is not None else "other"
        version, variant = (request.version, request.variant) if request is not None else (0, "")
        metrics.answered(path, answer.status, version, variant)

    return Endpoint(routes, guards=guards or [], observers=[count], is_stuck=lambda: desk.stuck,
                    closing=[] if log is None else [log.close])


def _log(
    home: Path | None, name: str, contract: Contract, spec: ServingSpec, metrics: Metrics
) -> PredictionLog | None:
    if home is None or spec.log is None:
        return None
    return PredictionLog(home, name, contract, spec.log,
                         on_written=metrics.logged.inc, on_dropped=metrics.dropped.inc)


def _unlogged(request: Request, scored: Scored, seconds: float) -> None:
    """Where there is no log."""


def _warm_up(contract: Contract, predictor: PredictorLike, max_rows: int) -> None:
    """Score made-up rows, few and many; a pattern can't be made up for, so it is left out."""
    document = contract.model_dump(mode="json")
    for rule in document["columns"].values():
        rule["pattern"] = None
    score = Scorer(type(contract).model_validate(document), predictor, 0)
    row = example_row(contract)
    for count in [1] * _WARM_UP + [max_rows]:
        score([[row] * count])
