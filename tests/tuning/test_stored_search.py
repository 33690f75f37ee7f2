"""Searches whose trials' checkpoints lie in a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning_problem import FakePrepared

from raymill.stores import Folder, scratch
from raymill.training.checkpoint import read_progress
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.tuning.places import FOLDER, Places
from raymill.tuning.records import SearchResult
from raymill.tuning.search import search
from raymill.tuning.spec import TuningSpec

pytestmark = [pytest.mark.usefixtures("ray_local"), pytest.mark.filterwarnings("ignore")]
RATES = {"training.lr": {"low": 1e-3, "high": 1e-1, "log": True}}


def run(folder: Path, store: Folder, epochs: int, **tuning: Any) -> SearchResult:
    family = tuning.pop("family", "linear")
    prepared: Any = FakePrepared()
    return search(ModelSpec(family=family), TrainingSpec(epochs=epochs), None,
                  TuningSpec.model_validate(tuning), prepared, folder, store=store)


def test_a_population_goes_on_with_weights_from_the_store(tmp_path: Path) -> None:
    store, out = Folder(tmp_path / "store"), tmp_path / "out"
    result = run(out, store, 4, trials=4, scheduler="pbt", population=2, space=RATES)
    assert [trial.state for trial in result.trials] == ["complete"] * 4
    assert [sorted(trial.values) for trial in result.trials] == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert not (out / FOLDER).exists()
    assert not any(scratch(store / FOLDER).glob("[0-9]*"))  # copies go with their trials
    assert (store / "study.journal").path.read_bytes() == (out / "study.journal").read_bytes()


@pytest.mark.parametrize(("family", "workers"), [("linear", 2), ("gbdt", 1)])
def test_the_winners_checkpoint_is_had_from_the_store(
    family: str, workers: int, tmp_path: Path
) -> None:
    store, out = Folder(tmp_path / "store"), tmp_path / "out"
    result = run(out, store, 2, trials=2, refit="none", family=family, scheduler="none",
                 resources={"workers": workers}, concurrency=1)
    assert [trial.state for trial in result.trials] == ["complete"] * 2
    best = result.trials[result.best_trial]
    assert (store / FOLDER).folders() == [str(best.number)]
    places = Places(out / FOLDER, store / FOLDER)
    found = places.best_checkpoint(best.number)
    assert found is not None and found.is_relative_to(out)
    told = {int(row["epoch"]): row["val_roc_auc"] for row in read_progress(found).history}
    assert told.items() <= best.values.items() and told
    assert not any(scratch(store / FOLDER).glob("[0-9]*"))
