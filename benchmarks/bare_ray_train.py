"""The reference of `startup`: Ray Train as its guide has it. `bare_ray_train.py PARQUET MARK`."""

from __future__ import annotations

import sys
from typing import Any

import ray
import ray.data
import ray.train
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer, prepare_model

from benchmarks.nets import FEATURES, Marking


def loop(config: dict[str, Any]) -> None:
    model = prepare_model(Marking(config["mark"]))
    optimizer = torch.optim.AdamW(model.parameters())
    for batch in ray.train.get_dataset_shard("train").iter_torch_batches(batch_size=1024):
        x = torch.stack([batch[f"x{i}"] for i in range(FEATURES)], dim=1)
        output = model({"numeric": x}).squeeze(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(output, batch["y"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def number(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "y": (batch["y"] == "yes").astype("float32")}


def main() -> None:
    ray.init(num_cpus=2)
    rows = ray.data.read_parquet(sys.argv[1]).map_batches(number)
    TorchTrainer(loop, train_loop_config={"mark": sys.argv[2]}, datasets={"train": rows},
                 scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1})).fit()


if __name__ == "__main__":
    main()
