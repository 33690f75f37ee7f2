from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raymill.errors import DataError
from raymill.evaluation.evaluate import evaluate
from raymill.evaluation.gates import better, judge
from raymill.evaluation.results import Evaluation
from raymill.evaluation.spec import CostSpec, ObjectiveSpec, ThresholdSpec
from raymill.events import Event

from .fakes import FakePredictor, FakePrepared, binary, images, regression, schema


def objective(**fields: object) -> ObjectiveSpec:
    return ObjectiveSpec.model_validate({"bootstrap": 100, **fields})


def truth(table: pa.Table) -> np.ndarray:
    return table["truth"].to_numpy()


def measured(tmp_path: Path, **fields: object) -> Evaluation:
    prepared = binary()
    return evaluate(FakePredictor(truth, prepared, tmp_path), prepared, objective(**fields))


# The best possible scores beat a constant and a line, and every contender has every metric.
def test_a_binary_model_beside_its_baselines(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert list(found.rivals) == ["constant", "linear", "boosting"]
    assert found.metric == "roc_auc" and found.rows == 1200
    assert found.rivals["constant"].metrics["roc_auc"].value == 0.5
    assert found.rivals["linear"].difference["roc_auc"].low > 0
    assert found.rivals["boosting"].metrics["roc_auc"].value > 0.75
    for rival in found.rivals.values():
        assert rival.metrics.keys() == rival.difference.keys() == found.metrics.keys()
    assert found.headline.low < found.headline.value < found.headline.high
    assert found.footprint["model_mb"] == 0.001
    assert np.sum(found.curves["confusion"]) == 1200


def test_an_evaluation_survives_json(tmp_path: Path) -> None:
    found = measured(tmp_path / "bundle", baselines=["constant"], gates=[])
    found.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json").to_dict() == found.to_dict()


# With costs, the model and each baseline are priced at their own cheapest cut.
def test_costs_are_measured(tmp_path: Path) -> None:
    rule = ThresholdSpec(cost=CostSpec(false_positive=1, false_negative=9))
    found = measured(tmp_path, threshold=rule, baselines=["constant"], gates=[])
    share = binary().table("test")["y"].to_numpy().mean()
    assert found.rivals["constant"].metrics["cost"].value == pytest.approx(1 - share)
    assert found.curves["sweep"]["name"] == "cost per row"


def test_a_regression_model_and_dates(tmp_path: Path) -> None:
    prepared = regression()
    model = FakePredictor(lambda t: 10 + 4 * t["x"].to_numpy(), prepared, tmp_path)
    found = evaluate(model, prepared, objective())
    assert found.metric == "rmse" and found.headline.value == pytest.approx(1, abs=0.1)
    assert found.rivals["linear"].metrics["r2"].value > 0.9
    assert found.rivals["boosting"].loses("rmse")
    assert found.rivals["constant"].difference["rmse"].high < 0


# Images reach the linear model as pixels, and boosting too; the shrinking is told.
def test_an_image_model(tmp_path: Path) -> None:
    prepared = images()
    model = FakePredictor(lambda t: np.eye(3)[t["y"].to_numpy()], prepared, tmp_path)
    found = evaluate(model, prepared, objective())
    assert found.metric == "accuracy" and found.headline.value == 1
    assert found.rivals["linear"].metrics["accuracy"].value > 0.9
    assert "averaged down to 64 numbers" in found.rivals["boosting"].note
    assert [row["recall"] for row in found.curves["per_class"]] == [1, 1, 1]


# A baseline that only a gate names is fitted too.
def test_a_gate_brings_its_baseline(tmp_path: Path) -> None:
    found = measured(tmp_path, baselines=[], gates=["beats: linear"])
    assert list(found.rivals) == ["linear"]


def test_no_test_rows_is_an_error_with_a_cure(tmp_path: Path) -> None:
    prepared = binary()
    prepared.tables["test"] = prepared.tables["test"].slice(0, 0)
    with pytest.raises(DataError, match=r"data\.split\.test"):
        evaluate(FakePredictor(truth, prepared, tmp_path), prepared, objective())


def test_caps_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymill.evaluation import baselines

    monkeypatch.setattr(baselines, "ROWS", 500)
    seen: list[Event] = []
    prepared = binary()
    predictor = FakePredictor(truth, prepared, tmp_path)
    found = evaluate(predictor, prepared, objective(), notify=seen.append)
    assert found.rivals["linear"].fitted_on == 500
    assert "fitted on 500 of 2,400 training rows" in found.rivals["linear"].note
    assert any("500 of 2,400" in e.data.get("text", "") for e in seen)


# The champion is scored on the same rows; one that predicts something else can't be compared.
def test_champions(tmp_path: Path) -> None:
    prepared = binary()
    model = FakePredictor(truth, prepared, tmp_path / "a")
    weaker = FakePredictor(lambda t: 1 - truth(t), prepared, tmp_path / "b")
    spec = objective(baselines=[], gates=["beats: champion"])
    assert judge(spec.gates, evaluate(model, prepared, spec))[0].passed
    first = evaluate(model, prepared, spec, champion=weaker)
    assert judge(spec.gates, first)[0].passed
    second = evaluate(weaker, prepared, spec, champion=model)
    assert not judge(spec.gates, second)[0].passed
    assert better(second) == ["champion"]
    same = evaluate(model, prepared, spec, champion=model)
    assert not judge(spec.gates, same)[0].passed and better(same) == []
    other = FakePrepared(prepared.tables, prepared.kinds, schema("binary", ("no", "maybe")))
    foreign = FakePredictor(truth, other, tmp_path / "c")
    verdict = judge(spec.gates, evaluate(model, prepared, spec, champion=foreign))[0]
    assert not verdict.passed and "could not be compared" in verdict.why


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        ("roc_auc >= 0.5", True),
        ("roc_auc > 0.99", False),
        ("p99_latency_ms <= 1000", True),
        ("model_mb < 0.0001", False),
        ("rmse <= 3", False),
        ("beats: baseline", True),
        ("beats: linear", True),
    ],
)
def test_gates(tmp_path: Path, gate: str, passed: bool) -> None:
    found = measured(tmp_path, baselines=["constant", "linear"])
    verdict = judge([gate], found)[0]
    assert verdict.passed is passed
    assert verdict.gate == gate and verdict.why
