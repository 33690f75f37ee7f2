"""The plan of the house: rooms are links, and imports go one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "raymill"
SHARED = {"errors", "events", "specs", "yamls", "failpoints", "ports", "reaper", "signals", "stores"}
OPEN_A_MODEL = {
    "training.bundle", "training.bundle_files", "training.predictor", "training.factories"}
# Room -> what it may import: a room, or a module of one.
MAY_IMPORT: dict[str, set[str]] = {
    "data": set(),
    "training": {"data"},
    "tuning": {"training", "data", "tracking"},
    "tracking": {"data", *OPEN_A_MODEL},
    "evaluation": {"data", *OPEN_A_MODEL, "training.metrics", "training.objective"},
    "serving": {"data", "tracking", "monitoring", "cluster", *OPEN_A_MODEL},
    "monitoring": {"data", "evaluation", "tracking"},
    "cluster": set(),
}
ROOMS = sorted(MAY_IMPORT)
# The parts of pip's raymill that must answer before torch and Ray are imported.
LIGHT = ["*/spec.py", "training/params.py", "training/objective.py", "evaluation/rules.py"]
HEAVY = {"torch", "ray", "mlflow", "sklearn", "pandas", "matplotlib", "optuna", "pyarrow", "scipy"}


def _files(room: str) -> list[Path]:
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """The absolute modules a file imports, and their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "raymill":
                for name in node.names:
                    yield node.lineno, f"raymill.{name.name}"
            else:
                yield node.lineno, node.module


def _other_rooms(room: str) -> Iterator[tuple[Path, int, str]]:
    """(file, line, module below raymill) for each import of raymill outside of `room`."""
    for path in _files(room):
        for line, module in _imports(path):
            if module.startswith("raymill.") and module.split(".")[1] != room:
                yield path.relative_to(ROOT), line, module.removeprefix("raymill.")


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_a_link(room: str) -> None:
    link = PACKAGE / room
    assert link.is_symlink(), (
        f"{link} must be a symbolic link to ../../{room}; if it is a text file, clone again with "
        "git config --global core.symlinks true"
    )
    assert link.readlink() == Path(f"../../{room}")
    assert (ROOT / room / "__init__.py").is_file()


def test_no_room_is_forgotten() -> None:
    assert sorted(path.name for path in PACKAGE.iterdir() if path.is_symlink()) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    allowed = SHARED | {"__version__"} | MAY_IMPORT[room]
    against = [
        f"{path}:{line} imports raymill.{module}"
        for path, line, module in _other_rooms(room)
        if not any(module == name or module.startswith(name + ".") for name in allowed)
    ]
    assert not against


def test_rooms_form_no_circle() -> None:
    edges = {
        room: {module.split(".")[0] for _, _, module in _other_rooms(room)} & set(ROOMS)
        for room in ROOMS
    }
    left = dict(edges)
    while left:
        free = [room for room, needs in left.items() if not needs & left.keys()]
        assert free, f"these rooms import each other in a circle: {left}"
        for room in free:
            del left[room]


def test_shared_modules_import_no_room() -> None:
    for name in sorted(SHARED):
        for line, module in _imports(PACKAGE / f"{name}.py"):
            top = module.removeprefix("raymill.").split(".")[0]
            assert not (module.startswith("raymill.") and top in ROOMS), f"{name}.py:{line}"


@pytest.mark.parametrize("folder", [*ROOMS, "src", "tests", "benchmarks", "examples"])
def test_no_file_imports_a_room_by_its_bare_name(folder: str) -> None:
    """It works by accident in the root of a checkout, and makes two copies of a module."""
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}; say raymill.{module}"
        for path in _files(folder) for line, module in _imports(path)
        if module.split(".")[0] in ROOMS
    ]
    assert not found


def test_specs_stay_light() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for pattern in LIGHT for path in ROOT.glob(pattern) for line, module in _imports(path)
        if module.split(".")[0] in HEAVY
    ]
    assert not found


@pytest.mark.parametrize("room", ROOMS)
def test_the_public_list_imports_nothing(room: str) -> None:
    assert list(_imports(ROOT / room / "__init__.py")) == []


def test_files_stay_small() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder in [*ROOMS, "src"] for path in _files(folder)
        if (count := len(path.read_text(encoding="utf-8").splitlines())) >= 500
    }
    assert not long
