"""Code of the user's own: models and loops named `package.module:attribute`.

An artifact may name such code but never brings it: it is imported only where the project said so,
in its own spec, on this machine.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from raymill.errors import Problem, UsageError

from .params import is_factory

FILE = "factories.json"
LOCK = ".factories.lock"
Factory = Callable[..., Any]

_importing = threading.RLock()
_projects: set[Path] = set()  # the folders that this process imported from
_aside: dict[Path, dict[str, ModuleType]] = {}  # their modules, while another's have those names


def load_object(name: str, project: str | Path | None) -> Any:
    """What `package.module:attribute` names, imported with `project` on the path.

    Projects may have modules of the same name: each gets its own.

    Raises:
        UsageError: not such a name, or it can't be imported.
    """
    if not is_factory(name):
        raise UsageError(Problem(rule="own code is named package.module:attribute", got=repr(name)))
    module, _, attribute = name.partition(":")
    with _importing:
        try:
            if project is not None:
                _enter(Path(project).resolve(), module)
            loaded = importlib.import_module(module)
            if project is not None:
                _check_owner(Path(project).resolve(), module, loaded)
            return getattr(loaded, attribute)
        except Exception as error:  # the user's module may raise anything while it is imported
            raise UsageError(Problem(
                rule=f"{name} must be importable from {project or 'the Python path'}",
                got=f"{type(error).__name__}: {error}",
                cure=f"Is there a {module.replace('.', '/')}.py, with {attribute} in it?",
            )) from error


def _enter(folder: Path, module: str) -> None:
    """Have `folder` imported from first, and set modules aside that hide those of `folder`."""
    top = module.partition(".")[0]
    file = folder.joinpath(*module.split("."))
    own = file.with_suffix(".py").is_file() or (file / "__init__.py").is_file()
    entries = folder.iterdir() if folder.is_dir() else ()  # or the code is installed
    names = {path.name.removesuffix(".py") for path in entries} - {"__main__"}
    for name, loaded in list(sys.modules.items()):
        first = name.partition(".")[0]
        if first not in names or _belongs(loaded, folder, first):
            continue
        others = [p for p in _projects - {folder} if _belongs(loaded, p, first)]
        if others or (own and first == top):
            del sys.modules[name]
            for other in others[:1]:
                _aside.setdefault(other, {})[name] = loaded
    sys.modules.update(_aside.pop(folder, {}))
    _projects.add(folder)
    if sys.path[:1] != [str(folder)]:
        sys.path[:] = [str(folder), *(path for path in sys.path if path != str(folder))]
        importlib.invalidate_caches()


def _belongs(loaded: ModuleType, folder: Path, first: str) -> bool:
    """Whether a module, whose name begins with `first`, was imported from `folder`."""
    place = getattr(loaded, "__file__", None) or next(iter(getattr(loaded, "__path__", ())), None)
    if place is None:
        return False
    path = Path(place).resolve()
    return path == folder / f"{first}.py" or path.is_relative_to(folder / first)


def _check_owner(folder: Path, module: str, loaded: ModuleType) -> None:
    first = module.partition(".")[0]
    for other in _projects - {folder}:
        if _belongs(loaded, other, first) and not _belongs(loaded, folder, first):
            raise ImportError(f"only another project, {other}, has a module {module}")


def allow(home: Path, name: str, project: Path, *, model: str | None = None) -> None:
    """Let models that name this factory be loaded on this machine, from this project.

    With `model`, only models of that name: two projects may name their factories alike. Of two
    projects that train a model of one name, the last to call counts.
    """
    key = name if model is None else f"{model}/{name}"
    with _locked(home):
        known = _read(home)
        if known.get(key) == str(project):
            return
        known[key] = str(project)
        temporary = home / f".{FILE}.{uuid.uuid4().hex[:8]}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(home / FILE)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def allowed(home: Path) -> Allowed:
    """The factories that projects on this machine allowed; each is imported when it is asked for."""
    return Allowed(_read(home))


def _read(home: Path) -> dict[str, str]:
    try:
        document = json.loads((home / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): str(project) for name, project in document.items()}


class Allowed(Mapping[str, Factory]):
    """Factories by name: those that were allowed for every model, until `of` names one."""

    def __init__(self, known: Mapping[str, str], model: str | None = None) -> None:
        self._known = known
        self._projects = {name: p for name, p in known.items() if "/" not in name}
        if model is not None:
            start = f"{model}/"
            self._projects |= {n.removeprefix(start): p for n, p in known.items()
                               if n.startswith(start) and is_factory(n.removeprefix(start))}

    def of(self, model: str | None) -> Allowed:
        """Those that a model of this name may use."""
        return Allowed(self._known, model)

    def __getitem__(self, name: str) -> Factory:
        factory: Factory = load_object(name, self._projects[name])
        return factory

    def __iter__(self) -> Iterator[str]:
        return iter(self._projects)

    def __len__(self) -> int:
        return len(self._projects)
