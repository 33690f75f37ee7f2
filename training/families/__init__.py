"""Model families: one module each, listed in `FAMILIES`."""

from .base import FAMILIES, Family, build

__all__ = ["FAMILIES", "Family", "build"]
