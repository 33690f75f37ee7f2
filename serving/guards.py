"""What stands before every route of a service that is not open."""

from __future__ import annotations

from pathlib import Path

from .answers import Guard
from .keys import KeyRing
from .rates import Rates
from .spec import ServingSpec

RATES = "rates"  # the buckets' file, in the service's private folder


def guards_of(spec: ServingSpec, home: Path, folder: Path) -> list[Guard]:
    """In the order in which they ask."""
    guards: list[Guard] = []
    if spec.keys:
        guards.append(KeyRing(home))
    if spec.rate is not None:
        guards.append(Rates(folder / RATES, spec.rate))
    return guards
