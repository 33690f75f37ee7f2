"""A checkpoint in parts is whole or not there, whichever rank is late, gone or of another attempt."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from raymill.errors import ArtifactError, TrainingError
from raymill.training.checkpoint import (
    MODEL,
    Progress,
    at,
    find,
    load_weights,
    newest_good,
    read_group,
    snapshot,
    sweep,
)
from raymill.training.parts import Parts
from raymill.training.saver import Saver

WHOLE = torch.arange(10.0).reshape(5, 2)


def save(folder: Path, rank: int, token: int = 7, number: int = 1, ranks: int = 2) -> Saver:
    """A rank's saver that writes its part: three rows of five and two, and rank 0 a whole tensor."""
    own = {"w": WHOLE[:3] if rank == 0 else WHOLE[3:], "empty": torch.ones(1 - rank)}
    more = {"count": torch.tensor(4)} if rank == 0 else {}
    saver = Saver(folder, parts=Parts(folder, rank, ranks, token))
    saver.save(snapshot({MODEL: {**own, **more}}, Progress(epoch=1),
                        {MODEL: {"w": [5, 2], "empty": [1]}}), number)
    return saver


def test_parts_make_the_whole(tmp_path: Path) -> None:
    for saver in (save(tmp_path, 0), save(tmp_path, 1)):
        saver.wait()
    for saver in (save(tmp_path, 0, number=2), save(tmp_path, 1, number=2)):
        saver.close()
    assert find(tmp_path).number == 2
    group = read_group(at(tmp_path, 2), MODEL)
    assert torch.equal(group["w"], WHOLE) and group["count"] == 4 and group["empty"].tolist() == [1]
    assert set(load_weights(at(tmp_path, 2))) == {"w", "empty", "count"}
    with pytest.raises(KeyError):
        group["other"]


def test_a_damaged_part_is_found(tmp_path: Path) -> None:
    for saver in (save(tmp_path, 0), save(tmp_path, 1)):
        saver.close()
    file = at(tmp_path, 1) / "model.part-00001.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert newest_good(tmp_path) is None
    with pytest.raises(ArtifactError, match="part-00001"):
        load_weights(at(tmp_path, 1))


def test_parts_of_a_killed_attempt_are_not_taken(tmp_path: Path) -> None:
    save(tmp_path, 1, token=6).close()
    late = save(tmp_path, 0)
    threading.Event().wait(0.3)
    assert newest_good(tmp_path) is None
    save(tmp_path, 1).close()
    late.close()
    assert newest_good(tmp_path) == at(tmp_path, 1)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt-00000001"]


def test_a_run_that_fails_waits_for_no_part(tmp_path: Path) -> None:
    saver = save(tmp_path, 0)
    with pytest.raises(TrainingError, match="rank 1 must write its part"):
        saver.abandon()
    assert newest_good(tmp_path) is None
