from __future__ import annotations

import json
from pathlib import Path

import pytest

from raymill.cli.main import main


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYMILL_HOME", str(tmp_path / "home"))


def test_a_key_is_made_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "keys", "add", "alice", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"].startswith(f"rm_{made['id']}_")
    assert main(["serve", "keys", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert json.loads(listed)["keys"][0]["holder"] == "alice" and made["key"] not in listed
    assert main(["serve", "keys", "revoke", "alice", made["id"], "--json"]) == 0
    assert main(["serve", "keys", "list"]) == 0
    assert "there are no keys" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["add"], ["add", "a", "b"], ["list", "a"], ["rotate", "a"],
                                   ["revoke", "nobody"], ["add", "../a"]])
def test_other_words_are_refused_with_the_right_ones(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "keys", *words]) == 2
    assert capsys.readouterr().err


def test_serve_takes_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "a", "b"]) == 2 and "one NAME" in capsys.readouterr().err
    assert main(["serve", "stop", "a", "b"]) == 2
