"""The command line: outcomes as exit codes, progress as lines, JSON alone on stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raymill.cli.main import main
from raymill.cli.output import clean
from raymill.cli.progress import State, duration, plain_line, sparkline
from raymill.events import Event


def test_help_needs_no_heavy_import() -> None:
    code = ("import sys; from raymill.cli.main import build_parser; build_parser().format_help();"
            "print([m for m in ('torch', 'ray', 'mlflow', 'pandas') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_schema_prints_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "raymill spec"


def test_an_unexpected_error_leaves_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAYMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("raymill.cli.check.json_schema", lambda: 1 / 0)
    assert main(["schema"]) == 1
    said = capsys.readouterr().err
    assert "crash.log" in said and "Traceback" not in said
    assert "ZeroDivisionError" in (tmp_path / "home" / "crash.log").read_text()


def test_json_has_no_nan() -> None:
    assert clean({"a": [float("nan"), 1.0], "b": float("inf")}) == {"a": [None, 1.0], "b": None}


def test_trials_are_told_with_the_best_so_far() -> None:
    state = State()
    lines = []
    for event in (
        Event("stage", {"name": "search", "status": "started", "metric": "rmse"}),
        Event("trial", {"number": 0, "state": "complete", "value": 2.0, "params": {"a.lr": 0.1}}),
        Event("trial", {"number": 1, "state": "complete", "value": 3.0, "params": {}}),
        Event("trial", {"number": 2, "state": "failed", "value": None, "cause": "no memory"}),
    ):
        state.add(event)
        lines.append(plain_line(event, state) or "")
    assert "trial 1 complete rmse 3.0000" in lines[2] and "best 2.0000 (trial 0)" in lines[2]
    assert "failed" in lines[3] and "no memory" in lines[3]


def test_small_texts() -> None:
    assert duration(59) == "59s" and duration(61) == "1m01s" and duration(3700) == "1h01m"
    assert sparkline([1, 2, 3])[::2] == "▁█" and sparkline([]) == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [([], "one of --canary"), (["--canary", "--shadow"], "one of --canary"),
     (["--canary", "much"], "like 10%"), (["--canary", "150%"], "between 0 %"),
     (["--canary", "--bake", "soon"], "--bake"), (["--ab", "k", "--share", "1"], "between 0 %"),
     (["--canary"], "no service called")],
)
def test_a_rollout_that_can_not_be_is_refused_as_usage(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAYMILL_HOME", str(tmp_path / "home"))
    assert main(["rollout", "toy@challenger", *words]) == 2
    assert told in capsys.readouterr().err
    assert main(["rollout", "status"]) == 0 and "no rollout" in capsys.readouterr().out
