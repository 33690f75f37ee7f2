"""Signals: the first asks for an orderly end, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM)


def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """A handler that ends what goes on by `KeyboardInterrupt`."""
    raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[threading.Event]:
    """In the block, the first SIGINT or SIGTERM only sets the event that is yielded, so that work
    can come to an orderly end; every further one raises `KeyboardInterrupt`.

    Only the main thread gets signals: in another one the event is never set. Who sees it set
    raises `KeyboardInterrupt` when it is done.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {signum: signal.signal(signum, handle) for signum in ENDING}
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
