"""The reference of `ddp`: one rank of a bare DDP loop, started by torchrun with
`FOLDER EPOCHS BATCH`. Rank 0 writes rows a second of every epoch to FOLDER/rates.json."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.nets import Plain


def main() -> None:
    folder, epochs, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    x = torch.from_numpy(np.load(folder / "numeric.npy", mmap_mode="c"))
    y = torch.from_numpy(np.load(folder / "target.npy", mmap_mode="c")).float()
    model = torch.nn.parallel.DistributedDataParallel(Plain())
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    rates = []
    for epoch in range(epochs):
        dist.barrier()
        started = time.perf_counter()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for low in range(0, len(x), size):
            chosen = order[low : low + size].tensor_split(world)[rank]
            output = model({"numeric": x.index_select(0, chosen)}).squeeze(1)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                output, y.index_select(0, chosen))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rates.append(len(x) / (time.perf_counter() - started))
    if rank == 0:
        (folder / "rates.json").write_text(json.dumps(rates))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
