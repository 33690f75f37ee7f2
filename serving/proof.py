"""The process that works out golden answers, and what its result must be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from raymill.errors import ArtifactError, Problem

from .aside import step_aside
from .order import Order, write_private
from .plan import GOLDEN


class Proof:
    """Of one version: that it loads, answers golden rows, and fits the champion's clients.

    Args:
        champion: its bundle. accept: rows that the champion takes may be refused.
    """

    def __init__(self, order: Order, champion: Path, accept: bool) -> None:
        self._order, self._champion, self._accept = order, champion, accept
        self._result = Path(order.folder) / GOLDEN / f"{order.version}.json"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        asked = Path(self._order.folder) / GOLDEN / f"{self._order.version}.order"
        self._result.unlink(missing_ok=True)
        write_private(asked, self._order.text())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "raymill.serving.golden", str(asked), str(self._result)],
            stdin=subprocess.DEVNULL)
        step_aside(self._process)

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def check(self) -> None:
        """Raises ArtifactError with what the model did wrong, or how its contract differs."""
        from raymill.data.contract import Contract

        from .compatible import other_answers, refused_rows

        if not self._result.exists():
            code = None if self._process is None else self._process.returncode
            raise ArtifactError(f"loading it ended the process (exit code {code})")
        result: dict[str, Any] = json.loads(self._result.read_text())
        if "cause" in result:
            self._result.unlink()
            raise ArtifactError(result["cause"])
        old = Contract.model_validate(json.loads((self._champion / "contract.json").read_text()))
        new = Contract.model_validate(result["contract"])
        if why := other_answers(old, new):
            raise ArtifactError(Problem(
                rule="a service's versions answer in the same words", got="; ".join(why),
                cure="Stop the service and serve the version: its clients must know."))
        if (why := refused_rows(old, new)) and not self._accept:
            raise ArtifactError(Problem(
                rule="a new version takes every row that the champion takes",
                got="; ".join(why[:5]), cure="Take it all the same by --accept-contract."))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
