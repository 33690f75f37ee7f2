"""A small problem for searches, and code of a user's own that misbehaves on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data.block import BlockAccessor

from raymill.data.schema import InputSchema

SCHEMA = InputSchema(numeric=("x", "y"), categorical=(), image=None, task="binary",
                     classes=("no", "yes"))

OWN = '''
import os, time
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent


class Noisy(nn.Module):
    """A score whose noise decides its worth; training can't change it."""

    def __init__(self, noise, hangs=False):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.noise, self.hangs, self.calls = noise, hangs, 0

    def forward(self, batch):
        self.calls += 1
        if self.hangs and self.calls > 2:
            time.sleep(600)
        x = batch["numeric"][:, :1]
        generator = torch.Generator().manual_seed(0)
        return self.scale * (x + self.noise * torch.randn(x.shape, generator=generator))


def build(schema, noise=0.0, mode="good"):
    marker = HERE / f"tried-{mode}-{noise}"
    first = not marker.exists()
    marker.touch()
    if mode == "bad":
        raise ValueError("this mode is bad")
    if mode == "flaky" and first:
        raise OSError("only this once")
    if mode == "dies" and first:
        os.kill(os.getpid(), 9)
    return Noisy(noise if mode != "diverges" else float("nan"), hangs=mode == "hangs")


def slow(context):
    with (HERE / "pids").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    while not context.done:
        time.sleep(0.25)
        with (HERE / "epochs").open("a") as file:
            file.write("one\\n")
        context.finish_epoch(train_loss=0.0)
'''


@dataclass
class FakePrepared:
    """What a search asks of prepared data."""

    fingerprint: str = "f" * 64
    rows: int = 400
    asked: list[str] = field(default_factory=list)

    @property
    def transform(self) -> Any:
        return SimpleNamespace(schema=SCHEMA)

    def tensors(self, split: str) -> list[Any]:
        self.asked.append(split)
        rng = np.random.default_rng(len(split))
        numeric = rng.normal(size=(self.rows, 2)).astype(np.float32)
        target = (numeric[:, 0] + 0.3 * rng.normal(size=self.rows) > 0).astype(np.int64)
        return [ray.put({"numeric": numeric, "target": target})]

    def tensor_bytes(self, split: str) -> int:
        return self.rows * 16

    def tensor_dataset(self, split: str) -> ray.data.Dataset:
        blocks = [BlockAccessor.batch_to_arrow_block(ray.get(ref)) for ref in self.tensors(split)]
        return ray.data.from_arrow(blocks)


def project(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.py").write_text(OWN)
    return str(folder)
