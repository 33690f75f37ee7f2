"""A version that is loaded and warm: all that reads, scores and writes for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import golden
from .batcher import Batcher
from .openapi import example_row, pages
from .protocols.arrow import ArrowStream
from .protocols.mlflow import Invocations
from .protocols.native import Native
from .protocols.oip import OpenInference
from .scorer import CHAMPION, PredictorLike, Rows, Scored, Scorer
from .spec import ServingSpec

if TYPE_CHECKING:
    from raymill.data.contract import Contract

_WARM_UP = 3


class Model:
    """One version in this process. A new protocol is a file, a line here and a route.

    Raises:
        ArtifactError: its answers to golden rows are not what they must be.
    """

    def __init__(
        self,
        name: str,
        version: int,
        spec: ServingSpec,
        contract: Contract,
        predictor: PredictorLike,
        *,
        on_batch: Callable[[int, int], None] = lambda requests, rows: None,
        expected: dict[str, list[Any]] | None = None,
    ) -> None:
        here = golden.answers(contract, predictor)
        if expected is not None:
            golden.check_same(here, expected)
        _warm_up(contract, predictor, spec.max_batch_rows)
        self.version, self.contract, self.predictor = version, contract, predictor
        self.scorer = Scorer(contract, predictor, version, CHAMPION)
        self.batcher: Batcher[Rows, Scored] = Batcher(
            self.scorer, max_rows=spec.max_batch_rows, max_waiting=spec.max_waiting,
            on_batch=on_batch,
        )
        self.native, self.arrow = Native(contract, name), ArrowStream(contract, name)
        self.tensors, self.mlflow = OpenInference(contract, name), Invocations(contract)
        self.pages = pages(contract, name, version, spec)

    @property
    def variant(self) -> str:
        """What it is for now."""
        return self.scorer.variant


def _warm_up(contract: Contract, predictor: PredictorLike, max_rows: int) -> None:
    """Score made-up rows, few and many."""
    score = Scorer(golden.without_patterns(contract), predictor, 0)
    row = example_row(contract)
    for count in [1] * _WARM_UP + [max_rows]:
        score([[row] * count])
