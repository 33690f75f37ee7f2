"""What every room's spec is made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_STORE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w!.*'()=-]+)+/?", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")


class Part(BaseModel):
    """A part of the spec: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PlacedError(ValueError):
    """A rule over several fields that is broken at one of them: `place` leads there."""

    def __init__(self, message: str, *place: str | int, cure: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.cure = cure


def seconds(duration: str) -> float:
    """`"90s"`, `"2h"`, `"7d"`, `"500ms"` in seconds.

    Raises:
        ValueError: not a number followed by ms, s, m, h, d or w.
    """
    match = _DURATION.fullmatch(duration.strip())
    if match is None:
        raise ValueError(
            f"a duration is a number and one of {', '.join(_UNITS)} (like 30m), but got {duration!r}"
        )
    return float(match[1]) * _UNITS[match[2]]


def _store(uri: str) -> str:
    if not _STORE.fullmatch(uri):
        shown = re.sub(r"//[^/]*@|\?.*", "***", uri)  # where keys may stand
        raise ValueError("a store is s3://bucket/prefix, without keys or parameters: these stand "
                         f"in the environment, but got {shown!r}")
    return uri


StoreUri = Annotated[str, AfterValidator(_store)]


def _checked(duration: str) -> str:
    seconds(duration)
    return duration


Duration = Annotated[str, AfterValidator(_checked)]
