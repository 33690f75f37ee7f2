"""Work that lets those that answer go first on the CPUs: a replica that starts, a model's proof."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

_STEP, _LAST = 10, 19

Result = TypeVar("Result")


def aside(work: Callable[[], Result]) -> Result:
    """What `work` gives or raises; done in a thread of lower priority, which is waited for.

    In a thread, because nobody may take a lower priority back without privileges. Not for a
    process that answers meanwhile: it would wait for a lock that this thread holds.
    """
    with ThreadPoolExecutor(1, "aside", initializer=_lower) as pool:
        return pool.submit(work).result()


def step_aside(process: subprocess.Popen[Any]) -> None:
    """Lower the priority of a process that was started."""
    with suppress(OSError):  # it has ended already
        os.setpriority(os.PRIO_PROCESS, process.pid, lower())


def lower() -> int:
    """The niceness of what steps aside for this process."""
    return min(os.getpriority(os.PRIO_PROCESS, 0) + _STEP, _LAST)


def _lower() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), lower())
