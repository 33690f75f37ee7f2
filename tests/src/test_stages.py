"""Stages are done once, and again only when what they depend on changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raymill.errors import UsageError
from raymill.events import Event
from raymill.stages import Stages, locked


def statuses(events: list[Event]) -> list[str]:
    return [event.data["status"] for event in events]


def test_a_stage_with_the_same_inputs_is_skipped(tmp_path: Path) -> None:
    events: list[Event] = []
    stages = Stages(tmp_path, events.append)
    first = stages.run("train", {"lr": 1}, lambda folder: {"at": str(folder)})
    again = stages.run("train", {"lr": 1}, lambda folder: {"at": "elsewhere"})
    other = stages.run("train", {"lr": 2}, lambda folder: {"at": str(folder)})
    assert first == again and other[0] != first[0]
    assert statuses(events) == ["started", "finished", "skipped", "started", "finished"]


# A folder that a killed stage left is handed to the next try; nothing counts until it is done.
def test_a_failed_stage_is_run_again_in_its_folder(tmp_path: Path) -> None:
    def fails(folder: Path) -> dict[str, Any]:
        (folder / "half").touch()
        raise ValueError("broken")

    events: list[Event] = []
    stages = Stages(tmp_path, events.append)
    with pytest.raises(ValueError, match="broken"):
        stages.run("search", {}, fails)
    _, result = stages.run("search", {}, lambda folder: {"half": (folder / "half").exists()})
    assert result == {"half": True} and statuses(events)[1] == "failed"


def test_marks_share_a_folder_but_not_a_result(tmp_path: Path) -> None:
    stages = Stages(tmp_path, lambda event: None)
    eight, _ = stages.run("search", {}, lambda folder: {"trials": 8}, mark="done-8")
    sixteen, result = stages.run("search", {}, lambda folder: {"trials": 16}, mark="done-16")
    assert eight == sixteen and result == {"trials": 16}


def test_a_stage_that_another_holds_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "stage"), pytest.raises(UsageError, match="another holds"):
        with locked(tmp_path / "stage"):
            pass
