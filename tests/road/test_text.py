"""Texts, from a CSV file to an answer; and a model checked before it is paid for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import raymill
from raymill.cli.main import main
from raymill.serving.openapi import example_row, row_schema

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("ray_local")]
EXAMPLE = Path(__file__).parents[2] / "examples" / "text"
SMALL = ["training.epochs=6", "model.width=32", "objective.bootstrap=100",
         "objective.gates=[\"accuracy >= 0.6\"]", "training.batch_size=64"]
BROKEN = """
import torch

def build(schema):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(schema.vocabulary, schema.outputs)
            self.spare = torch.nn.Linear(2, 2)

        def forward(self, batch):
            return self.words(batch["text"]).mean(dim=1)

    return Broken()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("texts")
    subprocess.run([sys.executable, str(EXAMPLE / "make_data.py"), str(place), "--tickets", "1500"],
                   check=True, capture_output=True)
    shutil.copy(EXAMPLE / "raymill.yaml", place)
    (place / "broken_models.py").write_text(BROKEN)
    return place


@pytest.fixture
def _at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RAYMILL_HOME", str(folder / ".raymill"))


@pytest.mark.usefixtures("_at_home")
def test_texts_are_learnt_and_answered_alike_from_a_frame_and_from_a_request(folder: Path) -> None:
    spec = raymill.load_spec(folder / "raymill.yaml", SMALL)
    result = raymill.run(spec)
    assert result.passed and result.evaluation.metrics["accuracy"].value > 0.7
    assert result.evaluation.rivals["linear"].metrics["accuracy"].value > 0.6
    contract = result.trained.open().contract
    assert [contract.columns[name].kind for name in ("subject", "body", "channel")] == [
        "text", "text", "categorical"]
    assert row_schema(contract)["properties"]["body"]["description"] == "free text"
    model = raymill.load_model("text@champion")
    frame = pd.read_csv(folder / "tickets.csv", keep_default_na=False).head(40)
    rows = frame.drop(columns="queue").to_dict("records")
    answers = model.predict(frame)
    single = pd.concat([model.predict(pd.DataFrame([row])) for row in [*rows, example_row(contract)]])
    assert list(single["prediction"])[:40] == list(answers["prediction"])
    report = Path(result.report).read_text()
    assert "words: " in report


@pytest.mark.usefixtures("_at_home")
def test_a_model_with_a_fault_is_refused_before_it_is_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = str(folder / "raymill.yaml")
    assert main(["check", spec, "--train", "--set", "model.width=32"]) == 0
    said = capsys.readouterr().out
    assert said.count("ok ") == 7 and "FAILED" not in said
    own = ["--set", "model={family: 'broken_models:build'}"]
    assert main(["check", spec, "--train", *own]) == 2
    said, problems = capsys.readouterr()
    assert "FAILED gradients: every parameter gets a gradient" in said
    assert "none for spare.bias, spare.weight. Use these parameters in forward" in problems
    assert main(["check", spec, "--train", "--json", *own]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["problems"][0]["rule"] == "gradients: every parameter gets a gradient"
