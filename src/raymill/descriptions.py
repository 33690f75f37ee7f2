"""What the spec's fields mean, from the strings below them to the JSON Schema that editors read.

pydantic's own `use_attribute_docstrings` reads the sources at every import, which costs more than
all of `raymill --help`.
"""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise
from typing import Any

from .specs import Part


def describe(properties: dict[str, Any], part: type[Part]) -> None:
    """Put the texts of `part`'s fields into their `properties`."""
    for name, text in texts(part).items():
        if name in properties:
            properties[name]["description"] = text


def texts(part: type[Part]) -> dict[str, str]:
    """By field, what the string below it says; a field that is stated anew without one keeps what
    it was."""
    found: dict[str, str] = {}
    for each in reversed(part.__mro__):
        if issubclass(each, Part) and each is not Part:
            found |= _own(each)
    return found


def below(part: type[Part]) -> dict[str, type[Part]]:
    """Every part of a spec by its name, `part` among them."""
    found, waiting = dict[str, type[Part]](), [part]
    while waiting:
        each = waiting.pop()
        if each.__name__ not in found:
            found[each.__name__] = each
            for field in each.model_fields.values():
                waiting += _parts(field.annotation)
    return found


def _parts(annotation: Any) -> list[type[Part]]:
    """The parts that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    arguments = getattr(annotation, "__args__", ())
    return [part for argument in arguments for part in _parts(argument)]


def _own(part: type[Part]) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(part)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
