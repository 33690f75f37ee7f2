"""The pages' templates: everything escaped, nothing undefined, nothing fetched."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .formats import exact, label
from .svg import number

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> Environment:
    """Where the pages are rendered."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    made.filters |= {"exact": exact, "number": number, "label": label}
    return made
