"""The home: one's own, and closed to others."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from raymill.errors import UsageError
from raymill.tracking.home import Home


def test_environment_variable_moves_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home.find().path == tmp_path / ".raymill"
    monkeypatch.setenv("RAYMILL_HOME", str(tmp_path / "elsewhere"))
    assert Home.find().path == tmp_path / "elsewhere"
    assert Home.find(tmp_path / "stated").path == tmp_path / "stated"


def test_folders_are_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    home = Home.find(tmp_path / "home")
    for folder in (home.path, home.runs, home.cache, home.artifacts, home.services):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_home_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="must be writable"):
        Home.find(tmp_path / "file" / "home")
