"""Times as numbers: the parts that repeat as angles, the parts that run on as they run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .summary import ColumnSummary, as_floats

CYCLES = (("month", 12), ("day", 31), ("weekday", 7), ("hour", 24))
YEAR_US = 365.25 * 86_400e6


@dataclass(frozen=True)
class Dates:
    """A time column's outputs: sine and cosine of month, day, weekday and hour, and with `running`
    the year and the elapsed time, both as -1 .. 1 over the training rows (clipped to +-3).

    The column that a split by time goes by does not run: later rows lie outside of what was seen.
    """

    column: str
    low: float
    high: float
    flag: bool
    running: bool

    @staticmethod
    def fit(column: str, seen: ColumnSummary, *, running: bool) -> Dates:
        some = seen.numbers.count > 0
        return Dates(column, seen.numbers.min if some else 0.0, seen.numbers.max if some else 1.0,
                     seen.nulls > 0, running)

    @property
    def names(self) -> list[str]:
        names = [f"{self.column}:{part}_{wave}" for part, _ in CYCLES for wave in ("sin", "cos")]
        if self.running:
            names += [f"{self.column}:year", f"{self.column}:elapsed"]
        return [*names, f"{self.column}:missing"] if self.flag else names

    def apply(self, array: pa.Array, out: NDArray[np.float32]) -> None:
        missing = pc.is_null(array).to_numpy(zero_copy_only=False)
        filled = pc.fill_null(array, pa.scalar(int(self.low), pa.timestamp("us")))
        parts = {"month": pc.subtract(pc.month(filled), 1), "day": pc.subtract(pc.day(filled), 1),
                 "weekday": pc.day_of_week(filled), "hour": pc.hour(filled)}
        at = 0
        for name, period in CYCLES:
            angle = parts[name].to_numpy(zero_copy_only=False) * (2 * np.pi / period)
            out[:, at], out[:, at + 1] = np.sin(angle), np.cos(angle)
            at += 2
        if self.running:
            years = pc.year(filled).to_numpy(zero_copy_only=False) - 1970
            out[:, at] = self._scaled(years * YEAR_US, YEAR_US)
            out[:, at + 1] = self._scaled(as_floats(filled), 0.0)
            at += 2
        out[missing, :at] = 0
        if self.flag:
            out[:, at] = missing

    def _scaled(self, micros: NDArray[np.float64], least: float) -> NDArray[np.float64]:
        middle, half = (self.low + self.high) / 2, max(self.high - self.low, least, 1.0) / 2
        return np.clip((micros - middle) / half, -3, 3)
