"""Checkpoints of a model that lies in parts on the workers: each writes its own part.

No worker gathers the model. A part is written as a folder of its own, whole or not there; rank 0,
which writes the checkpoint, takes the others' files into it before the manifest. A tensor in parts
was split along its first dimension, so its parts in the order of the ranks are the whole.
"""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from raymill.errors import TrainingError

from .files import read_manifest, write_folder
from .tensors import write_tensors

FILE = "parts.json"
WAIT_S, POLL_S = 600.0, 0.05  # as long as a collective waits
Groups = Mapping[str, Mapping[str, Tensor]]
Shapes = Mapping[str, Mapping[str, list[int]]]


def file_of(group: str, rank: int) -> str:
    """The file of a rank's part of a group of tensors."""
    return f"{group}.part-{rank:05d}.safetensors"


class Parts:
    """One rank's end of the writing. `token` names the attempt, alike on every rank: parts that a
    killed attempt left are not taken."""

    def __init__(self, folder: Path, rank: int, ranks: int, token: int) -> None:
        self.rank, self.ranks = rank, ranks
        self._place = folder / f".ckpt-parts-{token:016x}"  # `checkpoint.sweep` knows the name
        self._taken = 0
        self._given_up = threading.Event()

    def leave(self, number: int, groups: Groups) -> Path:
        """Write this rank's part of checkpoint `number`, for rank 0 to take."""
        def fill(folder: Path) -> None:
            for group, tensors in groups.items():
                write_tensors(folder / file_of(group, self.rank), tensors)

        return write_folder(self._part(number, self.rank), fill, {"kind": "part"})

    def take(self, number: int, folder: Path, shapes: Shapes) -> dict[str, Any]:
        """Move the other ranks' files of checkpoint `number` into `folder`, once they are there;
        their entries for its manifest. `shapes` are those of the tensors in parts, whole.

        Raises:
            TrainingError: a rank did not write its part.
            OSError: they were taken before, and went with a folder that the disk had no room for.
        """
        if self._taken == number:
            raise OSError(errno.ENOSPC, "no space for the checkpoint's manifest")
        entries: dict[str, Any] = {}
        for rank in range(1, self.ranks):
            part = self._part(number, rank)
            self._wait_for(part, rank)
            for name, entry in read_manifest(part)["files"].items():
                (part / name).rename(folder / name)
                entries[name] = entry
            shutil.rmtree(part)
            self._taken = number
        (folder / FILE).write_text(json.dumps({"ranks": self.ranks, "shapes": shapes}))
        return entries

    def give_up(self) -> None:
        """Wait for no part any more: the run has failed."""
        self._given_up.set()

    def close(self) -> None:
        """Rank 0, when all is taken."""
        if self.rank == 0:
            with suppress(OSError):
                self._place.rmdir()

    def _part(self, number: int, rank: int) -> Path:
        return self._place / f"{number:08d}-{rank:05d}"

    def _wait_for(self, part: Path, rank: int) -> None:
        until = time.monotonic() + WAIT_S
        while not part.exists():
            if self._given_up.wait(POLL_S) or time.monotonic() > until:
                raise TrainingError(f"rank {rank} must write its part of a checkpoint",
                                    cure="Does every worker's machine see the run's folder?")


class Joined(Mapping[str, Tensor]):
    """A group of tensors of a checkpoint in parts. Each is read, whole, when it is asked for."""

    def __init__(self, path: Path, group: str) -> None:
        said = json.loads((path / FILE).read_text())
        self._shapes: dict[str, list[int]] = said["shapes"].get(group, {})
        self._paths = [file for rank in range(said["ranks"])
                       if (file := path / file_of(group, rank)).exists()]

    @cached_property
    def _files(self) -> list[Any]:
        return [safe_open(path, "pt") for path in self._paths]

    def __getitem__(self, name: str) -> Tensor:
        if name not in set(self):
            raise KeyError(name)
        if name not in self._shapes:
            whole: Tensor = self._files[0].get_tensor(name)
            return whole
        joined = torch.cat([file.get_tensor(name) for file in self._files])
        if list(joined.shape) != self._shapes[name]:
            raise ValueError(f"{name} has the shape {list(joined.shape)}, not {self._shapes[name]}")
        return joined

    def __iter__(self) -> Iterator[str]:
        return iter(self._files[0].keys() if self._files else ())

    def __len__(self) -> int:
        return sum(1 for _ in self)
