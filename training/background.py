"""A call in a thread, so that the main thread is free for signals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
POLL_S = 0.2


class Background(Generic[Value]):
    """Runs `call` in a daemon thread: nothing waits for it when the program ends."""

    def __init__(self, call: Callable[[], Value]) -> None:
        self._ended = threading.Event()
        self._value: Value
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(call,), name="raymill-fit", daemon=True).start()

    def _run(self, call: Callable[[], Value]) -> None:
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001 - `result` raises it in the caller's thread
            self._error = error
        finally:
            self._ended.set()

    def done(self, timeout_s: float) -> bool:
        """Whether it has ended; waits for that as long as `timeout_s`."""
        return self._ended.wait(timeout_s)

    def result(self) -> Value:
        """Wait for the value, or raise what the call raised."""
        while not self.done(POLL_S):
            pass  # short waits: a signal is handled between them
        if self._error is not None:
            raise self._error
        return self._value
