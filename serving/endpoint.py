"""Puts an endpoint together: models, protocols, pages, guards; warm and ready."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymill.monitoring.store import log_folder

from .answers import JSON, Answer, Guard, Request, Route
from .app import Endpoint
from .desk import Desk
from .feedback import Feedback
from .follower import Follower
from .metrics import Metrics
from .model import Model
from .pages import page_routes
from .plan import Plan, Variant
from .prediction_log import PredictionLog
from .protocols import mlflow, oip
from .protocols.arrow import ARROW
from .scorer import PredictorLike, Scored
from .spec import LogSpec, ServingSpec
from .variants import Variants

if TYPE_CHECKING:
    from collections.abc import Callable

    from raymill.data.contract import Contract


def build(
    name: str,
    version: int,
    spec: ServingSpec,
    contract: Contract,
    predictor: PredictorLike,
    guards: list[Guard] | None = None,
    home: Path | None = None,
) -> Endpoint:
    """The endpoint of one model alone.

    Args:
        home: where answers are logged and labels kept, as `spec.log` says; None: nowhere.
    """
    metrics = Metrics(name)
    variant = Variant(version, "", "", "champion")
    model = Model(name, version, spec, contract, predictor, on_batch=metrics.batch)
    variants = Variants(Plan(1, (variant,)), model)
    return _endpoint(name, spec, variants, metrics, guards, home)


def build_following(
    name: str,
    spec: ServingSpec,
    folder: Path,
    plan: Plan,
    load: Callable[[Variant], tuple[Contract, PredictorLike]],
    guards: list[Guard] | None = None,
    home: Path | None = None,
) -> Endpoint:
    """The endpoint of a replica that follows the plan in `folder`; see `build`.

    Raises:
        Exception: the plan's champion can't be loaded.
    """
    metrics = Metrics(name)

    def make(variant: Variant, expected: dict[str, list[Any]] | None) -> Model:
        contract, predictor = load(variant)
        return Model(name, variant.version, spec, contract, predictor, on_batch=metrics.batch,
                     expected=expected)

    variants = Follower(folder, make).start(plan)
    return _endpoint(name, spec, variants, metrics, guards, home)


def _endpoint(
    name: str, spec: ServingSpec, variants: Variants, metrics: Metrics,
    guards: list[Guard] | None, home: Path | None,
) -> Endpoint:
    """A new protocol is a file, a line in `Model` and one here."""
    logs = None if home is None or spec.log is None else _Logs(home, name, spec.log, metrics)
    desk = Desk(variants, metrics, spec, _unlogged if logs is None else logs.add)
    variants.attach(metrics.serves, desk.log)
    predict = desk.handler({JSON: lambda model: model.native.read,
                            ARROW: lambda model: model.arrow.read})
    routes = [
        Route("POST", "/predict", predict),
        *oip.Routes(name, desk).all(),
        *mlflow.routes(desk),
        *page_routes(desk, metrics, name),
    ]

    if logs is not None:
        contract = variants.now.champion.contract
        routes += Feedback(contract, logs.folder, spec, metrics.labels.inc).routes()

    def count(request: Request | None, answer: Answer, seconds: float) -> None:
        path = request.route.path if request is not None else "other"
        version, variant = (request.version, request.variant) if request is not None else (0, "")
        metrics.answered(path, answer.status, version, variant)

    return Endpoint(routes, guards=guards or [], observers=[count], is_stuck=lambda: desk.stuck,
                    closing=[] if logs is None else [logs.close])


class _Logs:
    """The prediction log of a replica: a writer for each contract that its models keep, since it
    says which columns there are and which are masked."""

    def __init__(self, home: Path, name: str, spec: LogSpec, metrics: Metrics) -> None:
        self.folder = log_folder(home, name)
        self._of: dict[str, PredictionLog] = {}
        self._lock = threading.Lock()
        self._home, self._name, self._spec, self._metrics = home, name, spec, metrics

    def add(self, request: Request, scored: Scored, seconds: float, contract: Contract) -> None:
        log = self._of.get(contract.version) or self._made(contract)
        log.add(request, scored, seconds)

    def _made(self, contract: Contract) -> PredictionLog:
        with self._lock:  # a shadow logs in a thread of its own
            if contract.version not in self._of:
                self._of[contract.version] = PredictionLog(
                    self._home, self._name, contract, self._spec,
                    on_written=self._metrics.logged.inc, on_dropped=self._metrics.dropped.inc)
            return self._of[contract.version]

    def close(self) -> None:
        for log in self._of.values():
            log.close()


def _unlogged(request: Request, scored: Scored, seconds: float, contract: Contract) -> None:
    """Where there is no log."""
