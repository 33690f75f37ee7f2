"""Model families: one module each, listed in `FAMILIES`."""

from .base import FAMILIES, Family, build, families_in

__all__ = ["FAMILIES", "Family", "build", "families_in"]
