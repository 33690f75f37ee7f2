"""When a search ends: the first of its budgets that is used up, and which one it was."""

from __future__ import annotations

import time

from raymill.specs import seconds

from .goals import maximized
from .ledger import Ledger
from .spec import BudgetSpec

_WRITE_EVERY_S = 5.0  # what a kill makes the budget forget


class Budget:
    """Counts what the trials use, over all calls, and says when that is enough.

    `cpu` and `gpu` are what one trial holds. `ended_by` is empty while the search may go on.
    """

    def __init__(self, spec: BudgetSpec, ledger: Ledger, cpu: float, gpu: float,
                 began: float | None = None) -> None:
        self._spec = spec
        self._ledger = ledger
        self._each = {"cpu_s": cpu, "gpu_s": gpu}
        self._spent = {"wall_s": 0.0, "cpu_s": 0.0, "gpu_s": 0.0, **ledger.spent}
        self._before = self._written = time.monotonic() if began is None else began
        self.ended_by = ""
        self.news()

    def tick(self) -> None:
        """Count the time since the last tick; call it some times a second."""
        now = time.monotonic()
        passed, self._before = now - self._before, now
        self._spent["wall_s"] += passed
        for name, each in self._each.items():
            self._spent[name] += passed * each * len(self._ledger.live)
        self.ended_by = self.ended_by or self._used_up()
        if now - self._written >= _WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        self._written = time.monotonic()
        self._ledger.spend(self._spent)

    def news(self) -> None:
        """Look at the values again: an epoch or a trial has ended."""
        self.ended_by = self.ended_by or self._used_up() or self._enough()

    def stop(self, why: str) -> None:
        self.ended_by = self.ended_by or why

    def _used_up(self) -> str:
        limits = {
            "wall": (self._spent["wall_s"], seconds(self._spec.wall) if self._spec.wall else None),
            "cpu_hours": (self._spent["cpu_s"] / 3600, self._spec.cpu_hours),
            "gpu_hours": (self._spent["gpu_s"] / 3600, self._spec.gpu_hours),
        }
        for name, (used, limit) in limits.items():
            if limit is not None and used >= limit:
                return f"tuning.budget.{name} of {getattr(self._spec, name)}"
        return ""

    def _enough(self) -> str:
        target, plateau = self._spec.target, self._spec.plateau
        if target is not None and (best := self._ledger.best_so_far()) is not None:
            up = maximized(self._ledger.objectives.names[0])
            if best >= target if up else best <= target:
                return f"tuning.budget.target of {target:g}, reached with {best:.6g}"
        if plateau is not None and self._ledger.since_best() >= plateau:
            return f"tuning.budget.plateau: {plateau} trials without a better one"
        return ""
