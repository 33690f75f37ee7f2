"""The user's own code: where it is found, and what it is."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

from raymill.errors import Problem
from raymill.spec import Spec
from raymill.training.params import is_factory

MAX_FILES = 2000


def own_code(spec: Spec) -> list[str]:
    """The `package.module:attribute` names in the spec that are the user's own."""
    named = [spec.model.family, spec.training.loop or ""]
    return [name for name in named if is_factory(name)]


def code_digest(spec: Spec, base: Path) -> str:
    """Of the Python files beside the spec, when it names code of the user's own; else empty."""
    if not own_code(spec):
        return ""
    digest = hashlib.sha256()
    files = sorted(p for p in base.rglob("*.py") if not any(q.startswith(".") for q in p.parts))
    for path in files[:MAX_FILES]:
        digest.update(f"{path.relative_to(base)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_code(spec: Spec, base: Path) -> list[Problem]:
    """What is wrong with the code that the spec names: each must import and be callable."""
    problems = []
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    for name in own_code(spec):
        module, _, attribute = name.partition(":")
        try:
            target = getattr(importlib.import_module(module), attribute, None)
        except Exception as error:  # noqa: BLE001 - the user's module may raise anything
            problems.append(Problem(rule=f"{name} must be importable", got=repr(error),
                                    where=str(base),
                                    cure="Put the module beside the spec, or install it."))
            continue
        if not callable(target):
            problems.append(Problem(rule=f"{name} must name a function", got=repr(target),
                                    where=str(base)))
    return problems
