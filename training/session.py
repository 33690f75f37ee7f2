"""What the training loop reports through, so that one loop runs in three places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from raymill.stores import Store


class StopTraining(Exception):
    """Raised by `Session.report` when the run should end early, as after a pruned trial."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has kept a checkpoint of its last step."""


class Session(Protocol):
    """One worker's place in a run.

    Every rank calls `report` once an epoch, in the same order. `folder` is where rank 0 writes
    checkpoints (None: none are kept, the best weights stay in memory). With a `store`, that is
    where they are published; then `folder` is this rank's own.
    """

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def folder(self) -> Path | None: ...

    @property
    def store(self) -> Store | None: ...

    @property
    def stopping(self) -> bool:
        """Whether the run was asked to stop; rank 0's answer counts."""

    def report(self, metrics: Mapping[str, float]) -> None:
        """Tell an epoch's metrics; may raise `StopTraining`."""

    def alive(self, typical_s: Callable[[], float]) -> None:
        """This worker got on: it is called after every step and every batch of an evaluation.
        `typical_s()` is the median time of a step."""


@dataclass
class InlineSession:
    """A single worker in this process."""

    folder: Path | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    world_size: int = 1
    reports: list[dict[str, float]] = field(default_factory=list)
    stopping: bool = False
    store: Store | None = None

    def report(self, metrics: Mapping[str, float]) -> None:
        self.reports.append(dict(metrics))

    def alive(self, typical_s: Callable[[], float]) -> None:
        """Nobody watches."""


def pick_device(gpu: str, local_rank: int = 0) -> torch.device:
    """The device that `training.gpu` asks for: the rank's own GPU, or the CPU."""
    if gpu != "never" and torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")
