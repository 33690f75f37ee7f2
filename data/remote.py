"""Plain Ray tasks over many arguments, a bounded number in flight, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from raymill.errors import RaymillError

IN_FLIGHT = 256


def submit(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """One task; ObjectRefs among `arguments` are handed over as values."""
    return _task(function).remote(*arguments)


_tasks: dict[Callable[..., Any], Any] = {}


def _task(function: Callable[..., Any]) -> Any:
    if function not in _tasks:
        _tasks[function] = ray.remote(num_cpus=0.5, max_retries=3)(function)
    return _tasks[function]


def gather(
    function: Callable[..., Any],
    arguments: Iterable[Sequence[Any]],
    said: Callable[[int], None] = lambda done: None,
) -> list[Any]:
    """`function` over each tuple of `arguments`, in parallel; results in the arguments' order.

    `said` hears how many are done. A RaymillError raised in a task is raised here as itself.
    """
    results: list[Any] = []
    waiting: list[Any] = []
    for item in arguments:
        waiting.append(submit(function, item))
        if len(waiting) >= IN_FLIGHT:
            results.append(get(waiting.pop(0)))
            said(len(results))
    for ref in waiting:
        results.append(get(ref))
        said(len(results))
    return results


def get(ref: Any) -> Any:
    """The value of `ref`.

    Raises:
        RaymillError: the task's own.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, RaymillError):
            raise error.cause from None
        raise
