"""From a search to the model: as the spec says, and averaged only where that is better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raymill.data.prepare import Prepared, prepare
from raymill.data.spec import DataSpec
from raymill.errors import UsageError
from raymill.events import Event, ignore
from raymill.refit import Trained, refit
from raymill.results import SearchOutcome
from raymill.training.checkpoint import load_weights
from raymill.training.families.ensemble import ENSEMBLE
from raymill.training.job import make_job
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.kept import best_checkpoint
from raymill.tuning.search import search
from raymill.tuning.spec import TuningSpec

pytestmark = [pytest.mark.usefixtures("ray_local"), pytest.mark.filterwarnings("ignore")]
MODEL, TRAINING = ModelSpec(family="mlp"), TrainingSpec(epochs=3, batch_size=64, patience=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refit")


@pytest.fixture(scope="module")
def data(place: Path, ray_local: None) -> Prepared:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=900), draw.normal(size=900)
    label = np.where(x * y + 0.4 * draw.normal(size=900) > 0, "yes", "no")
    pq.write_table(pa.table({"x": x, "y": y, "label": label}), place / "rows.parquet")
    spec = DataSpec(source="rows.parquet", target="label")
    return prepare(spec, place, place / "cache", ignore)


@pytest.fixture(scope="module")
def found(place: Path, data: Prepared) -> SearchOutcome:
    """A search of four trials that left the weights of its best two."""
    tuning = TuningSpec.model_validate({
        "trials": 4, "ensemble": 2, "sampler": "random", "scheduler": "none",
        "space": {"training.lr": {"low": 1e-4, "high": 1e-2, "log": True}}})
    result = search(MODEL, TRAINING, "roc_auc", tuning, data, place / "search")
    kept = [path.name for path in (place / "search" / "trials").iterdir()]
    assert len(kept) == 2 and str(result.best_trial) in kept
    return SearchOutcome(
        metric="roc_auc", best_params=result.best_params, best_value=result.best_value,
        trials=[trial.to_dict() for trial in result.trials],
        model=result.model.model_dump(), training=result.training.model_dump(),
        best_trial=result.best_trial, folder=place / "search", study=result.study_name)


def refitted(place: Path, data: Prepared, found: SearchOutcome, told: list[Event],
             **tuning: Any) -> Trained:
    spec = SimpleNamespace(name="x", model=MODEL, training=TRAINING,
                           tuning=TuningSpec.model_validate(tuning))
    work: Any = SimpleNamespace(spec=spec, project=None, notify=told.append,
                                home=SimpleNamespace(path=place))
    assert found.training is not None
    job = make_job(MODEL, TrainingSpec.model_validate(found.training), "roc_auc",
                   data.transform.schema, None)
    return refit(work, data, job, found, place / f"train-{len(tuning)}-{tuning['refit']}")


def notes(told: list[Event]) -> str:
    return "\n".join(event.data["text"] for event in told if event.kind == "note")


def test_none_takes_the_winners_weights_as_they_are(
    place: Path, data: Prepared, found: SearchOutcome
) -> None:
    made = refitted(place, data, found, [], refit="none")
    assert made.metrics["val_roc_auc"] == pytest.approx(found.best_value)
    assert found.folder is not None and found.best_trial is not None
    checkpoint = best_checkpoint(found.folder, found.best_trial)
    assert checkpoint is not None
    kept = load_weights(checkpoint)
    assert all(torch.equal(made.weights[name], kept[name]) for name in kept)


def test_an_average_is_the_model_only_where_it_is_better(
    place: Path, data: Prepared, found: SearchOutcome
) -> None:
    told: list[Event] = []
    made = refitted(place, data, found, told, refit="none", ensemble=2)
    assert "the average of 2 models reaches roc_auc" in notes(told)
    assert (made.job.family == ENSEMBLE) == ("the average is the model" in notes(told))
    assert made.metrics["val_roc_auc"] >= found.best_value - 1e-6


def test_checkpoint_begins_with_the_winners_weights(
    place: Path, data: Prepared, found: SearchOutcome
) -> None:
    made = refitted(place, data, found, [], refit="checkpoint")
    assert made.job.start is not None and len(made.history) == 3
    assert made.history[0]["val_roc_auc"] > 0.8  # weights drawn by a seed begin with coin tosses


def test_weights_that_were_not_kept_are_asked_for_in_vain(
    place: Path, data: Prepared, found: SearchOutcome
) -> None:
    with pytest.raises(UsageError, match=r"checkpoint is not there.*Set tuning\.refit to scratch"):
        refitted(place, data, replace(found, folder=place / "nowhere"), [], refit="none")
