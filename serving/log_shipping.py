"""Finished files of the prediction log, put into a store beside the answering."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from raymill.monitoring.store import ship
from raymill.stores import cause, store_at

_EVERY_S, _TELL_S, _LAST_S = 15.0, 600.0, 20.0
_log = logging.getLogger("raymill.serving")


class Shipping:
    """A thread of its own: a store that is slow or away delays no line of the log. What could not
    be put is tried again, also by the service's next replica."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder = folder
        self._place = store_at(f"{store.rstrip('/')}/predictions/{folder.name}")
        self._known: set[str] = set()
        self._told = -_TELL_S
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-shipping", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Put what has been finished, if the store answers soon."""
        self._closing.set()
        self._thread.join(_LAST_S)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._closing.wait(_EVERY_S)
            try:
                ship(self._folder, self._place, self._known)
            except OSError as error:
                if time.monotonic() - self._told >= _TELL_S:
                    self._told = time.monotonic()
                    _log.error("the prediction log can't be put into %s: %s", self._place,
                               cause(error))
