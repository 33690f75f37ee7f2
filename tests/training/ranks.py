"""One rank of two that train the scenarios below, without Ray; started by test_equivalence as
`ranks.py RANK FOLDER`. What each came to is written as `<scenario>-<rank>.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))

from raymill.errors import TrainingError
from raymill.training import saver, trainer
from raymill.training.loop import fit
from raymill.training.result import as_dict
from raymill.training.session import InlineSession, Interrupted
from raymill.training.shard import Shard
from raymill.training.strategy import Copies
from tests.training.samples import block, job

ROWS, WORLD = 203, 2
MODEL = {"width": 16, "depth": 1, "dropout": 0.0, "embedding": 4}
EXACT: dict[str, Any] = {"model": MODEL, "epochs": 3, "precision": "fp32"}
NORMED: dict[str, Any] = {"family": "tests.training.normed:Normed", "model": {}}
OWN = "tests.training.own_loops:plain"
STOP = 9  # steps of 7 an epoch; looked at every third


def shards(seed: int = 0) -> tuple[Shard, Shard]:
    return Shard([block(ROWS)], seed, shared=True), Shard([block(60, seed=1)], shared=True)


def no_all_reduce(rank: int) -> AbstractContextManager[Any]:
    def syncing(self: Copies, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(self.module, DistributedDataParallel)
        return self.module.no_sync()

    return patch.object(Copies, "syncing", syncing)


def seed_by_rank(rank: int) -> AbstractContextManager[Any]:
    real = trainer.build_model
    return patch.object(trainer, "build_model", lambda job: real(job.with_training(seed=rank)))


def order_by_rank(rank: int) -> AbstractContextManager[Any]:
    return patch.object(sys.modules[__name__], "shards", lambda: _shards(seed=rank))


_shards = shards


@contextmanager
def sound(rank: int) -> Any:
    yield


Fault = Callable[[int], AbstractContextManager[Any]]
SCENARIOS: dict[str, tuple[dict[str, Any], Fault]] = {
    "ddp": ({}, sound),
    "fsdp": ({"strategy": "fsdp"}, sound),
    "fsdp-layers": ({"strategy": "fsdp", "model": {**MODEL, "width": 320, "depth": 2},
                     "epochs": 1}, sound),
    "ddp-accumulate": ({"accumulate": 3}, sound),
    "fsdp-accumulate": ({"strategy": "fsdp", "accumulate": 3, "batch_size": 5}, sound),
    "ddp-ema": ({"ema": 0.9, "optimizer": "muon"}, sound),
    "fsdp-ema": ({"strategy": "fsdp", "ema": 0.9}, sound),
    "fsdp-sgd": ({"strategy": "fsdp", "optimizer": "sgd", "nesterov": True, "lr": 0.05}, sound),
    "resampled": ({"resample": "balanced"}, sound),
    "fsdp-stopped": ({"strategy": "fsdp", "ema": 0.9, "checkpoint_every": 3}, sound),
    "fsdp-twice": ({"strategy": "fsdp", "ema": 0.9, "checkpoint_every": 3}, sound),
    "ddp-stopped": ({"checkpoint_every": 3}, sound),
    "ddp-loop": ({"loop": OWN}, sound),
    "ddp-loop-idle": ({"loop": OWN, "batch_size": 2, "epochs": 1}, sound),
    "norm-ddp": (NORMED, sound),
    "norm-fsdp": ({**NORMED, "strategy": "fsdp"}, sound),
    "trees": ({"family": "gbdt", "model": {"rounds": 12, "min_rows": 5}}, sound),
    "no-all-reduce": ({"guard_every": 2}, no_all_reduce),
    "seed-by-rank": ({}, seed_by_rank),
    "order-by-rank": ({}, order_by_rank),
}


class Stopped(InlineSession):
    """A session that is asked to stop after some steps."""

    left = STOP

    def alive(self, typical_s: Callable[[], float]) -> None:
        self.left -= 1
        self.stopping = self.left <= 0


def run(name: str, rank: int, folder: Path) -> dict[str, Any]:
    training, fault = SCENARIOS[name]
    if name.endswith("twice"):  # stopped, and then to its end
        cut = Stopped(folder / name, rank=rank, world_size=WORLD)
        with suppress(Interrupted):
            fit(job(**{**EXACT, **training}), *shards(), cut)
    kind = Stopped if name.endswith("stopped") else InlineSession
    session = kind(folder / name, rank=rank, world_size=WORLD)
    try:
        with fault(rank):
            return as_dict(fit(job(**{**EXACT, **training}), *shards(), session))
    except TrainingError as error:
        return {"error": str(error)}
    except Interrupted:
        return {"interrupted": True}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    saver.TICK_S = 60.0  # a slow disk must not count as steps
    dist.init_process_group("gloo", rank=rank, world_size=WORLD,
                            init_method=f"file://{folder}/rendezvous")
    for name in SCENARIOS:
        (folder / f"{name}-{rank}.json").write_text(json.dumps(run(name, rank, folder)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
