"""A trial's session, without a Ray."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raymill.training import checkpoint
from raymill.tuning import trial
from raymill.tuning.trial import EPOCH, OBJECTIVE, TrialSession


def rows(*values: float) -> list[dict[str, float]]:
    return [{"epoch": n, "val_auroc": value} for n, value in enumerate(values, start=1)]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(trial.tune, "report", told.append)
    return told


def test_a_second_try_goes_on_with_the_best_and_tells_the_last_epoch(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    model = nn.Linear(1, 1)
    progress = checkpoint.Progress(epoch=3, history=rows(0.6, 0.9, 0.7))
    state = checkpoint.snapshot({checkpoint.MODEL: model.state_dict()}, progress)
    checkpoint.write(tmp_path, 1, state)
    session = TrialSession("auroc", True, torch.device("cpu"), tmp_path)
    session.go_on()
    assert [(each[EPOCH], each[OBJECTIVE]) for each in told] == [(3, 0.9)]


def test_a_first_try_tells_nothing(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    for folder in (tmp_path, None):
        session = TrialSession("auroc", True, torch.device("cpu"), folder)
        session.go_on()
        assert told == [] and math.isnan(session.best)
