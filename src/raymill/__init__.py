"""raymill: from a data set and one spec file to a tuned, tracked, gated and autoscaled service.

    >>> import raymill
    >>> spec = raymill.load_spec("fraud/raymill.yaml")     # doctest: +SKIP
    >>> result = raymill.run(spec)                         # doctest: +SKIP
    >>> raymill.load_model("fraud@champion").predict(df)   # doctest: +SKIP
"""

from __future__ import annotations

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

_CLIENTS = ("AsyncClient", "Client")

if TYPE_CHECKING:
    from raymill.serving.client import AsyncClient, Client

    from .api import (
        Spec,
        evaluate,
        load_model,
        load_spec,
        predictions,
        run,
        score,
        serve,
        train,
        tune,
    )


def __getattr__(name: str) -> Any:
    """Load the API when it is first used: `raymill --help` must not wait for torch."""
    if name in _CLIENTS:
        from raymill.serving import client

        return getattr(client, name)
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module 'raymill' has no attribute {name!r}")
