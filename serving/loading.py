"""Opens the bundle that an order names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .order import Order

if TYPE_CHECKING:
    from raymill.data.contract import Contract

    from .scorer import PredictorLike

Load = Callable[[Order], "tuple[Contract, PredictorLike]"]


def load_bundle(order: Order) -> tuple[Contract, PredictorLike]:
    """The order's bundle.

    Raises:
        ArtifactError: a file of it differs from what was registered.
    """
    from raymill.training.bundle import Bundle
    from raymill.training.factories import allowed
    from raymill.training.predictor import Predictor

    bundle = Bundle.open(Path(order.bundle), order.digest)
    device = "cuda" if order.spec.gpus_per_replica else "cpu"
    predictor = Predictor(
        bundle, device=device, factories=allowed(Path(order.home)), threads=order.spec.threads
    )
    return bundle.contract, predictor
