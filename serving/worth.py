"""What answers turned out to be worth, read from the prediction log and its labels."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raymill.monitoring.predictions import Window
from raymill.monitoring.store import log_folder
from raymill.monitoring.value import Costs, worth

from .sequential import Moments

_log = logging.getLogger("raymill.serving")


class LoggedValues:
    """`rollout.Values` of one service. A log may take long to read, so a thread of its own reads
    it, and `since` gives what it last found."""

    def __init__(self, home: Path, name: str) -> None:
        self._folder = log_folder(home, name)
        self._found: tuple[float, Mapping[int, Moments]] = (0.0, {})
        self._reading: threading.Thread | None = None

    def since(self, began: float, bundle: Path) -> Mapping[int, Moments]:
        """By version, of answers given after `began` (epoch seconds); larger is better.

        Args:
            bundle: the champion's, whose costs of errors count.
        """
        if self._reading is None or not self._reading.is_alive():
            self._reading = threading.Thread(
                target=self._read, args=(began, bundle), name="worth", daemon=True)
            self._reading.start()
        return self._found[1] if self._found[0] == began else {}

    def _read(self, began: float, bundle: Path) -> None:
        try:
            window = Window(since=datetime.fromtimestamp(began, UTC))
            found = worth(self._folder, _costs(bundle), window)
        except Exception as error:  # noqa: BLE001 - the rollout goes on without
            _log.error("the labels can't be read: %s: %s", type(error).__name__, error)
            return
        self._found = (began, {
            each.version: Moments(each.count, each.mean, each.variance)
            for each in found if not math.isnan(each.variance)})


def _costs(bundle: Path) -> Costs | None:
    objective: dict[str, Any] = json.loads((bundle / "objective.json").read_text())
    classes = json.loads((bundle / "contract.json").read_text())["classes"]
    return Costs.of(objective, classes)
