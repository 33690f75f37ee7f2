"""Code of the user's own: models and loops named `package.module:attribute`.

An artifact may name such code but never brings it: it is imported only where the project said so,
in its own spec, on this machine.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raymill.errors import Problem, UsageError

from .params import is_factory

FILE = "factories.json"
Factory = Callable[..., Any]


def load_object(name: str, project: str | Path | None) -> Any:
    """What `package.module:attribute` names, imported with `project` on the path.

    Raises:
        UsageError: not such a name, or it can't be imported.
    """
    if not is_factory(name):
        raise UsageError(Problem(rule="own code is named package.module:attribute", got=repr(name)))
    folder = str(project) if project is not None else None
    if folder is not None and folder not in sys.path:
        sys.path.insert(0, folder)
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything while it is imported
        raise UsageError(Problem(
            rule=f"{name} must be importable from {folder or 'the Python path'}",
            got=f"{type(error).__name__}: {error}",
            cure=f"Is there a {module.replace('.', '/')}.py, with {attribute} in it?",
        )) from error


def allow(home: Path, name: str, project: Path) -> None:
    """Let models that name this factory be loaded on this machine, from this project."""
    known = _read(home)
    if known.get(name) == str(project):
        return
    known[name] = str(project)
    temporary = home / f".{FILE}.{uuid.uuid4().hex[:8]}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(known, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(home / FILE)


def allowed(home: Path) -> Mapping[str, Factory]:
    """The factories that projects on this machine allowed; each is imported when it is asked for."""
    return _Allowed(_read(home))


def _read(home: Path) -> dict[str, str]:
    try:
        document = json.loads((home / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): str(project) for name, project in document.items()}


class _Allowed(Mapping[str, Factory]):
    def __init__(self, projects: dict[str, str]) -> None:
        self._projects = projects

    def __getitem__(self, name: str) -> Factory:
        factory: Factory = load_object(name, self._projects[name])
        return factory

    def __iter__(self) -> Iterator[str]:
        return iter(self._projects)

    def __len__(self) -> int:
        return len(self._projects)
