"""Checkpoints are whole or absent, and one that was changed is never picked."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from raymill.errors import ArtifactError, TrainingError
from raymill.training import checkpoint, saver
from raymill.training.checkpoint import (
    MODEL,
    OPTIMIZER,
    Progress,
    Snapshot,
    at,
    find,
    load_optimizer,
    load_weights,
    newest_good,
    numbers,
    of_epoch,
    optimizer_tensors,
    read_group,
    read_progress,
    snapshot,
    write,
)
from raymill.training.position import Position, Stretch
from raymill.training.saver import Saver
from raymill.training.tensors import to_host, write_tensors


def trained(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def state(progress: Progress, model: nn.Module | None = None) -> Snapshot:
    trained_model, optimizer = trained()
    return snapshot({MODEL: (model or trained_model).state_dict(),
                     OPTIMIZER: optimizer_tensors(optimizer)}, progress)


def keep(folder: Path, *epochs: int, best: int = 1) -> None:
    writer = Saver(folder)
    folder.mkdir(exist_ok=True)
    for epoch in epochs:
        writer.save(state(Progress(epoch=epoch, best=0.5, best_epoch=best, best_checkpoint=best)),
                    epoch)
    writer.close()


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained()
    progress = Progress(2, 9, 0.7, 2, 0, [{"epoch": 1.0}], "me", 3,
                        Position([Stretch([5, 4], [0, 1], [2, 2], 1)]), {"workers": 2},
                        [{"epoch": 1, "steps": 0, "exact": "bitwise"}], {"scaler": {"scale": 2.0}})
    path = write(tmp_path, 7, state(progress))
    again, its = trained(seed=1)
    again.load_state_dict(read_group(path, MODEL))
    load_optimizer(its, read_group(path, OPTIMIZER))
    assert read_progress(path) == progress
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            assert torch.equal(value, its.state_dict()["state"][index][name])


def test_tensors_of_every_kind_are_read_by_the_librarys_own_reader(tmp_path: Path) -> None:
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
             torch.int16, torch.int8, torch.uint8, torch.bool]
    tensors = {str(kind): torch.arange(6).reshape(2, 3).to(kind).t() for kind in kinds}
    tensors |= {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 4)}
    write_tensors(tmp_path / "t.safetensors", {n: to_host(t) for n, t in tensors.items()})
    read = load_file(tmp_path / "t.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_later_steps_do_not_change_a_snapshot() -> None:
    model, _ = trained()
    taken = state(Progress(epoch=1), model)
    before = taken.groups[MODEL]["0.weight"].clone()
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert torch.equal(taken.groups[MODEL]["0.weight"], before)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest", "empty", "swap"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, damage: str) -> None:
    keep(tmp_path, 1, 2)
    victim = at(tmp_path, 2) / ("manifest.json" if damage == "manifest" else "model.safetensors")
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        victim.write_bytes(data)
    elif damage == "delete":
        victim.unlink()
    elif damage == "swap":
        other = victim.with_name("optimizer.safetensors")
        victim.write_bytes(other.read_bytes())
        other.write_bytes(data)
    else:
        victim.write_bytes(data[: 0 if damage == "empty" else len(data) // 2])
    found = find(tmp_path)
    assert found.number == 1 and list(found.damaged) == [2]
    assert "ckpt-00000002" in found.damaged[2]
    with pytest.raises(ArtifactError):
        load_weights(at(tmp_path, 2))


def test_an_older_checkpoint_under_a_newer_name_is_not_taken(tmp_path: Path) -> None:
    keep(tmp_path, 1, 2)
    shutil.copytree(at(tmp_path, 1), at(tmp_path, 9))
    assert newest_good(tmp_path) == at(tmp_path, 2)


def test_the_newest_is_told_by_its_number_not_by_its_time(tmp_path: Path) -> None:
    keep(tmp_path, 1, 2)
    (at(tmp_path, 1) / "progress.json").touch()
    at(tmp_path, 1).touch()
    assert newest_good(tmp_path) == at(tmp_path, 2)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    victim = at(tmp_path, 1) / "optimizer.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"optimizer\.safetensors"):
        load_weights(at(tmp_path, 1))


def test_the_newest_two_and_the_best_are_kept(tmp_path: Path) -> None:
    keep(tmp_path, 1, 2, 3, 4, 5, best=2)
    assert numbers(tmp_path) == [5, 4, 2]
    assert of_epoch(tmp_path, 4) == at(tmp_path, 4)


def test_a_half_written_folder_is_no_checkpoint(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    at(tmp_path, 1).rename(tmp_path / ".ckpt-00000001.tmp-abc")
    assert newest_good(tmp_path) is None
    checkpoint.sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    model, _ = trained()
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    writer = Saver(tmp_path)
    writer.save(state(Progress(epoch=1), model), 1)
    with pytest.raises(TrainingError, match=r"0\.weight"):
        writer.close()
    assert newest_good(tmp_path) is None


def test_a_fallen_back_run_still_has_its_best(tmp_path: Path) -> None:
    keep(tmp_path, 1, 2, 3, 4, best=1)
    keep(tmp_path, 5, best=5)
    (at(tmp_path, 5) / "model.safetensors").unlink()
    fallen = newest_good(tmp_path)
    assert fallen == at(tmp_path, 4)
    assert at(tmp_path, read_progress(fallen).best_checkpoint).exists()


class FullDisk:
    """A disk that takes no file while more than `room` checkpoints lie on it."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder, self.room, self.refused = folder, room, 0

    def write(self, folder: Path, number: int, taken: Snapshot, parts: None = None) -> Path:
        if len(numbers(folder)) >= self.room:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(folder, number, taken)


def test_a_full_disk_makes_room_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, 1, 2, best=2)
    disk = FullDisk(tmp_path, 2)
    monkeypatch.setattr(saver, "write", disk.write)
    keep(tmp_path, 3, best=2)
    assert numbers(tmp_path) == [3, 2] and disk.refused == 1


def test_a_disk_that_stays_full_keeps_the_last_good_one_and_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, 1, 2, best=2)
    monkeypatch.setattr(saver, "write", FullDisk(tmp_path, 1).write)
    with pytest.raises(TrainingError, match=r"No space left on device \([\d,]+ bytes needed"):
        keep(tmp_path, 3, best=2)
    assert newest_good(tmp_path) == at(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt-00000002"]
