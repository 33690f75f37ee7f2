"""`model.family: auto` is a stated rule: who is a candidate, and who is taken without a search."""

from __future__ import annotations

from typing import Any

import pytest

from raymill.errors import SpecError
from raymill.spec import spec_from
from raymill.training.auto import candidates, without_choice
from raymill.training.job import make_job
from raymill.training.spec import ModelSpec, TrainingSpec
from raymill.training.testing import IMAGES, TABLE

SPEC = {"name": "a", "data": {"source": "a.csv", "target": "y"}}


def test_images_are_for_the_cnn() -> None:
    assert candidates(IMAGES, TrainingSpec()) == ("cnn",)
    assert make_job(ModelSpec(), TrainingSpec(), None, IMAGES, None).family == "cnn"


def test_a_table_without_a_search_gets_trees() -> None:
    assert candidates(TABLE, TrainingSpec())[0] == "gbdt"
    assert make_job(ModelSpec(), TrainingSpec(epochs=5), None, TABLE, None).family == "gbdt"


@pytest.mark.parametrize("training", [
    {"lr": 1e-2}, {"loop": "mine:loop"}, {"gpu": "require"}, {"batch_size": 64},
])
def test_what_trees_do_not_heed_leads_to_gradients(training: dict[str, Any]) -> None:
    assert without_choice(TABLE, TrainingSpec(**training)) == "mlp"


def test_a_searched_field_is_one_that_the_family_heeds() -> None:
    assert without_choice(TABLE, TrainingSpec(), ["training.lr"]) == "mlp"
    assert without_choice(TABLE, TrainingSpec(), ["training.epochs"]) == "gbdt"


@pytest.mark.parametrize("override", [
    "training.lr=1e-2", "tuning.space.training.lr={low: 1e-3, high: 1e-2}",
])
def test_trees_refuse_what_they_do_not_use(override: str) -> None:
    with pytest.raises(SpecError, match="does not use"):
        spec_from(SPEC, ["model.family=gbdt", override])
    spec_from(SPEC, ["model.family=gbdt", "training.epochs=9", "training.lr=2e-3"])
