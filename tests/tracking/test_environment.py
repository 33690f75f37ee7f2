"""What a run ran on, and that no secret is in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raymill.tracking.environment import environment
from raymill.tracking.redact import redact, redact_value


def git(base: Path, *arguments: str) -> str:
    command = ["git", "-C", str(base), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_changes_are_told(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "raymill.yaml").write_text("name: a")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    told = environment(tmp_path)
    assert (told["git_commit"], told["git_dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "raymill.yaml").write_text("name: b")
    assert environment(tmp_path)["git_dirty"] is True


def test_project_outside_a_repository_has_no_commit(tmp_path: Path) -> None:
    told = environment(tmp_path)
    assert (told["git_commit"], told["git_dirty"]) == (None, None)
    assert any(package.startswith("mlflow==") for package in told["packages"])


def test_command_holds_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["raymill", "run", "--set", "tracking.uri=postgresql://me:hunter2@db/mlflow"]
    monkeypatch.setattr(sys, "argv", command)
    assert environment(tmp_path)["command"] == (
        "raymill run --set tracking.uri=postgresql://***@db/mlflow")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("postgresql://u:p@ss@host/db", "postgresql://***@host/db"),
        ("https://token@host/x?api_key=abc&n=1", "https://***@host/x?api_key=***&n=1"),
        ("s3://bucket/key.csv", "s3://bucket/key.csv"),
        ("AWS_SECRET_ACCESS_KEY=abc raymill", "AWS_SECRET_ACCESS_KEY=*** raymill"),
    ],
)
def test_secrets_are_hidden(text: str, safe: str) -> None:
    assert redact(text) == safe


def test_values_of_secret_names_are_hidden() -> None:
    assert redact_value("tracking.password", "abc") == "***"
    assert redact_value("AWS_SECRET_ACCESS_KEY", "abc") == "***"
    assert redact_value("training.lr", 1e-3) == "0.001"
    assert redact_value("model.token_width", 64) == "64"
