"""What a checkpoint holds of a run of the training loop, and how it is put back."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from . import checkpoint
from .checkpoint import MODEL, OPTIMIZER, RANKS, Progress
from .parallel import gather_rows
from .randomness import capture, replay
from .shelf import Shelf
from .strategy import held_here, is_in_parts, load_weights_into, shapes_in_parts

if TYPE_CHECKING:
    from .trainer import Trainer

TOTAL_BYTES = 8  # of the epoch's loss so far, a float64


class Stateful(Protocol):
    """A further part of a run that checkpoints hold: its tensors and JSON values."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Any) -> object: ...


class Keeper(Shelf):
    """The shelf of a `Trainer`. `parts` are those of the run beside model and optimizer."""

    def __init__(self, trainer: Trainer, parts: Mapping[str, Stateful]) -> None:
        super().__init__(trainer.session, trainer.notify, trainer.alive,
                         in_parts=not trainer.strategy.whole)
        self.trainer, self.parts = trainer, parts

    def take_up(self) -> None:
        """Put the run where its newest good checkpoint says; a run without one begins.

        Raises:
            UsageError: the checkpoints are those of another job.
        """
        trainer, setting = self.trainer, self.trainer.progress.setting
        found = self.newest(trainer.progress.identity, trainer.job.metric)
        if found is None:
            return
        path, progress = found
        exact = self._restore(path, progress)
        before, progress.setting = progress.setting, setting
        trainer.progress = progress
        if not trainer.done:
            self.tell(progress, exact, before)

    def _restore(self, path: Path, progress: Progress) -> bool:
        """Whether what comes is bitwise what would have come without the interruption."""
        trainer = self.trainer
        load_weights_into(trainer.model, checkpoint.read_group(path, MODEL))
        checkpoint.load_optimizer(trainer.optimizer, checkpoint.read_group(path, OPTIMIZER))
        for name, part in self.parts.items():
            # Tensors in parts are read one after the other, as they are asked for.
            part.load_state_dict(ChainMap(
                progress.facts.get(name, {}),
                checkpoint.read_group(path, name)))  # type: ignore[arg-type]  # only read
        same_batches = trainer.feed.goes_on(progress.position)
        ranks = checkpoint.read_group(path, RANKS)
        rank, same = trainer.session.rank, progress.setting == trainer.progress.setting
        if same_batches and same and progress.position.stretches:
            replay(ranks["random"][rank], trainer.session.device)
            trainer.total.copy_(ranks["total"][rank])
        elif progress.position.stretches:
            trainer.feed.resumed = False  # the random state is drawn anew
            trainer.total.copy_(ranks["total"].sum() if rank == 0 else torch.zeros(()))
        return same_batches and same and trainer.session.device.type == "cpu"

    def save(self) -> None:
        """Keep where the run is now; it is written while the run goes on.

        Raises:
            TrainingError: the checkpoint before this one could not be written.
        """
        trainer = self.trainer
        if self._folder is None:
            return
        trainer.spread_buffers()
        trainer.progress.position = trainer.feed.position
        groups: dict[str, Mapping[str, Tensor]] = {
            MODEL: trainer.model.state_dict(),
            OPTIMIZER: checkpoint.optimizer_tensors(trainer.optimizer)}
        for name, part in self.parts.items():
            state = part.state_dict()
            tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
            trainer.progress.facts[name] = {k: v for k, v in state.items() if k not in tensors}
            groups[name] = tensors
        shapes = {name: shapes_in_parts(tensors) for name, tensors in groups.items()}
        held = {name: self._held(tensors) for name, tensors in groups.items()}
        self.put({**held, RANKS: self._of_every_rank()}, trainer.progress, shapes)

    def _held(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What this rank writes: its parts of tensors in parts, and rank 0 the whole ones."""
        return {name: held_here([tensor])[0] for name, tensor in tensors.items()
                if self.session.rank == 0 or is_in_parts(tensor)}

    def _of_every_rank(self) -> dict[str, Tensor]:
        """Random state and loss so far, `[ranks, ...]`."""
        session = self.trainer.session
        total = self.trainer.total.detach().cpu().double().reshape(1).view(torch.uint8)
        own = torch.cat([capture(session.device), total]).to(session.device)
        every = torch.from_numpy(gather_rows(own.unsqueeze(0), [1] * session.world_size))
        return {"random": every[:, :-TOTAL_BYTES].contiguous(),
                "total": every[:, -TOTAL_BYTES:].contiguous().view(torch.float64).squeeze(1)}
