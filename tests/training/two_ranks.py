"""One rank of a run without Ray, started by test_parallel: `two_ranks.py RANK FOLDER ROWS...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from raymill.errors import TrainingError
from raymill.training.loop import fit
from raymill.training.result import as_dict
from raymill.training.session import InlineSession
from raymill.training.shard import Shard
from tests.training.samples import block, job


def main() -> None:
    rank, folder, rows = int(sys.argv[1]), Path(sys.argv[2]), [int(n) for n in sys.argv[3:]]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=len(rows),
                            init_method=f"file://{folder}/rendezvous")
    session = InlineSession(folder / "checkpoints", rank=rank, world_size=len(rows))
    train, validation = Shard([block(rows[rank], seed=rank)], rank), Shard([block(20, seed=rank)])
    try:
        result = fit(job(**json.loads((folder / "job.json").read_text())), train, validation,
                     session)
        (folder / f"rank{rank}.json").write_text(json.dumps(as_dict(result)))
    except TrainingError as error:
        (folder / f"rank{rank}.json").write_text(json.dumps({"error": str(error)}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
