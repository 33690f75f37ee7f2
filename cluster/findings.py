"""What the doctor finds: a line each, good or with its cure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `fail`: raymill can't work, or is open to others; `cure` mends it."""

    level: Level
    check: str
    text: str
    cure: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def good(check: str, text: str) -> Finding:
    return Finding("ok", check, text)


def doubtful(check: str, text: str, cure: str) -> Finding:
    return Finding("warn", check, text, cure)


def bad(check: str, text: str, cure: str) -> Finding:
    return Finding("fail", check, text, cure)
