"""A trial's session, without a Ray."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raymill.stores import Folder
from raymill.training import checkpoint
from raymill.training.session import StopTraining
from raymill.tuning import trial
from raymill.tuning.places import Own, Places
from raymill.tuning.trial import EPOCH, OBJECTIVE, TrialSession


def rows(*values: float) -> list[dict[str, float]]:
    return [{"epoch": n, "val_auroc": value} for n, value in enumerate(values, start=1)]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(trial.tune, "report", told.append)
    return told


def test_a_second_try_goes_on_with_the_best_and_tells_the_epochs_that_were_kept(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    model = nn.Linear(1, 1)
    progress = checkpoint.Progress(epoch=3, history=rows(0.6, 0.9, 0.7))
    state = checkpoint.snapshot({checkpoint.MODEL: model.state_dict()}, progress)
    checkpoint.write(tmp_path, 1, state)
    session = TrialSession("auroc", True, torch.device("cpu"), tmp_path)
    session.go_on()
    assert [(each[EPOCH], each[OBJECTIVE]) for each in told] == [(1, 0.6), (2, 0.9), (3, 0.9)]


def test_a_trial_that_is_run_again_takes_over_the_folder_of_the_last_that_left_one(
    tmp_path: Path
) -> None:
    for number in (4, 6):
        (tmp_path / str(number) / "checkpoints").mkdir(parents=True)
    places = Places(tmp_path)
    again = {"number": 9, "again": [8, 6, 4]}  # 8 was killed while it queued
    with places.running(again) as own:
        assert own.folder == tmp_path / "9"
        assert own.checkpoints.is_dir() and not (tmp_path / "6").exists()
    with places.running(again) as second:  # a second try of it
        assert second == own and own.checkpoints.is_dir()
    assert (tmp_path / "4").exists()
    with places.running({"number": 10}) as other:
        assert other.folder.is_dir()


def test_a_trial_goes_on_elsewhere_with_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(own: Own, number: int) -> None:
        progress = checkpoint.Progress(epoch=number, best_epoch=1, best_checkpoint=1)
        state = checkpoint.snapshot({checkpoint.MODEL: nn.Linear(1, 1).state_dict()}, progress)
        checkpoint.write(own.checkpoints, number, state)

    def on(machine: str) -> Places:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / machine))
        (tmp_path / machine).mkdir(exist_ok=True)
        return Places(tmp_path / "home", Folder(tmp_path / "store"))

    with on("one").running({"number": 6}) as own:
        for number in (1, 2, 3):
            write(own, number)
            own.publish()
    assert not own.folder.exists()
    assert on("one").kept.folders() == ["6"]
    again = {"number": 9, "again": [8, 6]}
    with on("two").running(again) as own:
        assert checkpoint.numbers(own.checkpoints) == [3, 1]
        write(own, 4)  # not published: nobody else could go on from it
    with on("three").running(again) as own:  # a second try, on another machine
        assert checkpoint.numbers(own.checkpoints) == [3, 1]
    places = on("four")
    assert places.kept.folders() == ["9"]
    assert places.best_checkpoint(9) == checkpoint.at(tmp_path / "home" / "9" / "checkpoints", 1)
    assert places.best_checkpoint(6) is None


def test_a_first_try_tells_nothing(tmp_path: Path, told: list[dict[str, Any]]) -> None:
    for folder in (tmp_path, None):
        session = TrialSession("auroc", True, torch.device("cpu"), folder)
        session.go_on()
        assert told == [] and math.isnan(session.best)


def test_a_share_of_the_epochs_goes_on_from_another_trial_and_ends_at_its_last(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    model = nn.Linear(1, 1)
    before = checkpoint.Progress(epoch=2, step=8, best=0.9, best_epoch=1, best_checkpoint=1,
                                 history=rows(0.9, 0.8))
    state = checkpoint.snapshot({checkpoint.MODEL: model.state_dict()}, before)
    donor = checkpoint.write(tmp_path / "3", 2, state)
    own = checkpoint.adopt(donor, tmp_path / "7", "another job")
    progress = checkpoint.read_progress(own)
    assert (progress.identity, progress.epoch, progress.step) == ("another job", 2, 8)
    assert (progress.best, progress.history) == (None, rows(0.9, 0.8))
    assert checkpoint.newest_good(tmp_path / "7") == own
    assert torch.equal(checkpoint.load_weights(own)["weight"], model.weight.detach())
    session = TrialSession("auroc", True, torch.device("cpu"), tmp_path / "7", start=2, until=4)
    session.go_on()
    assert told == []  # the epochs of the other trial are its own
    session.report({"epoch": 3, "val_auroc": 0.5})
    with pytest.raises(StopTraining):
        session.report({"epoch": 4, "val_auroc": 0.6})
    assert [(each[EPOCH], each[OBJECTIVE]) for each in told] == [(3, 0.5), (4, 0.6)]


def test_without_a_store_a_trial_imports_nothing_of_one() -> None:
    """Each import is time before every trial's first step."""
    code = ("import sys, raymill.tuning.trial, raymill.training.loop\n"
            "print([name for name in sys.modules if name.startswith('raymill.') and name.endswith("
            "('stores', 'mirrored', 'published'))])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
