"""Trials' processes that need no environment of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray.tune.execution import class_cache

_OWN = "RAYMILL_SESSION"  # in the environment of a Ray instance of our own, and of its driver


@contextmanager
def inherited() -> Iterator[None]:
    """Tune gives the processes of trials variables of its own and of the driver's, for which Ray
    starts an interpreter twice. Those of a Ray instance of our own have the driver's already."""
    if _OWN not in os.environ:
        yield
        return
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, frozenset()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = before
