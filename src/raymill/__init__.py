"""raymill: from a data set and one spec file to a tuned, tracked, gated and autoscaled service.

    >>> import raymill
    >>> spec = raymill.load_spec("fraud/raymill.yaml")     # doctest: +SKIP
    >>> result = raymill.run(spec)                         # doctest: +SKIP
    >>> raymill.load_model("fraud@champion").predict(df)   # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "Client",
    "Spec",
    "__version__",
    "evaluate",
    "load_model",
    "load_spec",
    "predictions",
    "run",
    "score",
    "serve",
    "train",
    "tune",
]

_PLACES = {
    "AsyncClient": "raymill.serving.client", "Client": "raymill.serving.client",
    "Spec": "raymill.spec", "load_spec": "raymill.spec",
    **dict.fromkeys(("evaluate", "run", "train", "tune"), "raymill.pipeline"),
    **dict.fromkeys(("load_model", "predictions", "score", "serve"), "raymill.api"),
}

if TYPE_CHECKING:
    from raymill.serving.client import AsyncClient, Client

    from .api import load_model, predictions, score, serve
    from .pipeline import evaluate, run, train, tune
    from .spec import Spec, load_spec


def __getattr__(name: str) -> Any:
    """Load the API when it is first used: `raymill --help` must not wait for torch."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'raymill' has no attribute {name!r}")
