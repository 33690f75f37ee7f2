"""Checkpoints are whole or absent, and one that was changed is never picked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from raymill.errors import ArtifactError, TrainingError
from raymill.training.checkpoint import (
    Progress,
    load_weights,
    newest_good,
    of_epoch,
    read_progress,
    restore,
    save,
)


def trained(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def save_epochs(folder: Path, *epochs: int, best: int = 1) -> None:
    model, optimizer = trained()
    for epoch in epochs:
        save(folder, model, optimizer, Progress(epoch=epoch, best_epoch=best, best=0.5))


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = save(tmp_path, model, optimizer, Progress(epoch=2, step=9, best=0.7, best_epoch=2,
                                                     history=[{"epoch": 1.0}], identity="me"))
    again, its = trained(seed=1)
    assert restore(path, again, its) == Progress(2, 9, 0.7, 2, 0, [{"epoch": 1.0}], "me")
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(value, its.state_dict()["state"][index][name])


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest", "empty"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    save_epochs(tmp_path, 1, 2)
    victim = of_epoch(tmp_path, 2) / ("manifest.json" if damage == "manifest"
                                      else "model.safetensors")
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        victim.write_bytes(data)
    elif damage == "delete":
        victim.unlink()
    else:
        victim.write_bytes(data[: 0 if damage == "empty" else len(data) // 2])
    assert newest_good(tmp_path) == of_epoch(tmp_path, 1)
    with pytest.raises(ArtifactError):
        load_weights(of_epoch(tmp_path, 2))


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    save_epochs(tmp_path, 1)
    victim = of_epoch(tmp_path, 1) / "optimizer.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"optimizer\.safetensors"):
        load_weights(of_epoch(tmp_path, 1))


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    save_epochs(tmp_path, 1, 2, 3, 4, 5, best=2)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "4", "5"]


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    save_epochs(tmp_path, 1)
    of_epoch(tmp_path, 1).rename(tmp_path / ".ckpt-00000001.tmp-abc")
    assert newest_good(tmp_path) is None


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    model, optimizer = trained()
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"0\.weight"):
        save(tmp_path, model, optimizer, Progress(epoch=1))
    assert newest_good(tmp_path) is None


def test_a_fallen_back_run_still_has_its_best(tmp_path: Path) -> None:
    save_epochs(tmp_path, 1, 2, 3, 4, best=1)
    save_epochs(tmp_path, 5, best=5)
    (of_epoch(tmp_path, 5) / "model.safetensors").unlink()
    fallen = newest_good(tmp_path)
    assert fallen == of_epoch(tmp_path, 4)
    assert of_epoch(tmp_path, read_progress(fallen).best_epoch).exists()
