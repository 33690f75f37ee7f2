"""Checkpoints: whole or absent, verified when read, and never of non-finite weights."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raymill.errors import ArtifactError, Problem, TrainingError

from .files import verify_folder, write_folder

_NAME = re.compile(r"ckpt-(\d{8})")
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


@dataclass
class Progress:
    """How far a run is: what a checkpoint holds beside tensors.

    Attributes:
        epoch: epochs done. step: optimizer steps done.
        best, best_epoch: the best validation metric so far and its epoch (0: none yet).
        stale: epochs since then. history: one dict an epoch.
        identity: names the job and the world size that the checkpoint belongs to.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    identity: str = ""


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None, progress: Progress
) -> Path:
    """Write checkpoint `ckpt-<epoch>` into `folder`, keeping the newest two and the best that
    each of them knows of.

    Raises:
        TrainingError: a weight is not finite (names it), or the disk is full.
    """
    weights = {name: tensor.detach().cpu().contiguous()
               for name, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(Problem(rule="weights must stay finite", got=f"NaN or Inf in {name}",
                                        cure="Lower training.lr, or set training.clip_norm."))

    def fill(temporary: Path) -> None:
        save_file(weights, temporary / MODEL)
        if optimizer is not None:
            save_file(_optimizer_tensors(optimizer), temporary / OPTIMIZER)
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)))

    dest = folder / f"ckpt-{progress.epoch:08d}"
    try:
        write_folder(dest, fill, {"kind": "checkpoint", "epoch": progress.epoch})
    except (OSError, SafetensorError) as error:
        raise TrainingError(Problem(
            rule="a checkpoint must fit on the disk", got=str(error), where=str(dest),
            cure="Free some space and run the same command: it goes on from the last good one.",
        )) from error
    _prune(folder, keep={progress.epoch, progress.best_epoch} | _wanted(folder, progress.epoch - 1))
    return dest


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, entries in state.items()
        for name, value in entries.items()
        if value is not None
    }


def _wanted(folder: Path, epoch: int) -> set[int]:
    """The checkpoint of `epoch` and the best it knows of: what a run falls back to when the newest
    turns out to be damaged."""
    try:
        return {epoch, read_progress(of_epoch(folder, epoch)).best_epoch}
    except (OSError, ValueError):
        return {epoch}


def _prune(folder: Path, keep: set[int]) -> None:
    for path in folder.iterdir():
        match = _NAME.fullmatch(path.name)
        if (match and int(match[1]) not in keep) or path.name.startswith(".ckpt-"):
            shutil.rmtree(path, ignore_errors=True)


def newest_good(folder: Path) -> Path | None:
    """The checkpoint of the latest epoch whose files are all as written; None: there is none."""
    if not folder.is_dir():
        return None
    for path in sorted(folder.glob("ckpt-*"), reverse=True):
        if not _NAME.fullmatch(path.name):
            continue
        try:
            verify_folder(path)
        except ArtifactError:
            continue
        return path
    return None


def of_epoch(folder: Path, epoch: int) -> Path:
    """Where the checkpoint of an epoch lies."""
    return folder / f"ckpt-{epoch:08d}"


def read_progress(path: Path) -> Progress:
    """What a verified checkpoint says of its run."""
    document: dict[str, Any] = json.loads((path / "progress.json").read_text())
    return Progress(**document)


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put a checkpoint's weights and optimizer state back. Random state needs none: order and
    dropout follow from seed, epoch and rank."""
    model.load_state_dict(load_file(path / MODEL))
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(path / OPTIMIZER).items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return read_progress(path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, verified.

    Raises:
        ArtifactError: names the file that changed.
    """
    verify_folder(path)
    weights: dict[str, Tensor] = load_file(path / MODEL)
    return weights
