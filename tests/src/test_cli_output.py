"""What verbs send and write: keys to endpoints, manifests and scripts to files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from raymill.cli import loadtest
from raymill.cli.doctor import _counted
from raymill.cli.main import main
from raymill.errors import UsageError

SPEC = """
name: toy
data: {source: "s3://bucket/x.parquet", target: y}
cluster:
  kubernetes: {image: "registry.example/raymill:1", claim: state}
"""


def test_a_load_test_shows_its_key_when_it_asks_who_is_served(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []

    def get(url: str, **options: Any) -> httpx.Response:
        asked.append(options["headers"])
        return httpx.Response(401, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    monkeypatch.setenv("TOY_KEY", "rm_1_secret")
    options = argparse.Namespace(key_env="TOY_KEY", input="rows.csv", tracking=None)
    with pytest.raises(UsageError, match="readyz"):
        loadtest._rows("http://127.0.0.1:8000", options)
    assert asked == [{"authorization": "Bearer rm_1_secret"}]


@pytest.mark.parametrize("as_json", [False, True])
def test_manifests_go_to_the_file_also_with_json(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, target = tmp_path / "raymill.yaml", tmp_path / "job.yaml"
    spec.write_text(SPEC)
    words = ["k8s", "job", str(spec), "--output", str(target), *(["--json"] if as_json else [])]
    assert main(words) == 0
    said = capsys.readouterr().out
    written = list(yaml.safe_load_all(target.read_text()))
    assert written[-1]["kind"] == "RayJob"
    if as_json:
        document = json.loads(said)
        assert document["manifests"] == written and document["output"] == str(target)
    else:
        assert said == f"wrote {target}\n"


@pytest.mark.parametrize(("output", "told"), [
    (None, "sbatch raymill.sbatch"), ("fraud/big.sbatch", "sbatch big.sbatch"),
    ("other.sbatch", "sbatch ../other.sbatch")])
def test_a_batch_script_is_named_as_it_is_seen_from_the_specs_folder(
    output: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "fraud").mkdir()
    (tmp_path / "fraud" / "raymill.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    words = ["cluster", "render", "fraud/raymill.yaml", "--for", "slurm"]
    assert main([*words, *(["--output", output] if output else [])]) == 0
    text = Path(output).read_text() if output else capsys.readouterr().out
    assert f"Hand it in from the spec's folder: {told}\n" in text


def test_one_warning_is_one() -> None:
    assert _counted(1, "warning") == "1 warning" and _counted(0, "failure") == "0 failures"
