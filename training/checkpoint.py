"""Checkpoints: whole or absent, verified when read, and never of non-finite weights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from raymill.errors import ArtifactError, Problem, TrainingError
from raymill.failpoints import failpoint

from .files import read_manifest, verify_folder, write_folder
from .parts import FILE as PARTS
from .parts import Joined, Parts, Shapes, file_of
from .position import Position, Stretch
from .strategy import like
from .tensors import bytes_of, to_host, write_tensors

CHECKPOINTS = "checkpoints"  # the folder of a run's or a trial's
REGROWN = "regrown"  # the folder of those of a last training on all rows, beside it
_NAME = re.compile(r"ckpt-(\d{8})")
MODEL, OPTIMIZER, RANKS, EMA = "model", "optimizer", "ranks", "ema"
TensorGroup = Mapping[str, Tensor]


@dataclass
class Progress:
    """How far a run is: what a checkpoint holds beside tensors.

    Attributes:
        epoch: epochs done. step: optimizer steps done.
        best, best_epoch: the best validation metric so far and its epoch (0: none yet).
        best_checkpoint: the number of the checkpoint that holds the best epoch's weights.
        stale: epochs since then. history: one dict an epoch.
        identity: names the job that the checkpoint belongs to.
        position: where in the unfinished epoch the run is.
        setting: what a resume must share for the weights to be bitwise the same.
        resumes: where the run was taken up again, and how exactly.
        facts: what parts of the run keep beside their tensors.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    identity: str = ""
    best_checkpoint: int = 0
    position: Position = field(default_factory=Position)
    setting: dict[str, Any] = field(default_factory=dict)
    resumes: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Progress:
        document = json.loads(text)
        stretches = [Stretch(**stretch) for stretch in document.pop("position")["stretches"]]
        return cls(**document, position=Position(stretches))


@dataclass(frozen=True)
class Snapshot:
    """A run at one step, in main memory: tensors by group and name, and the progress as JSON.

    `shapes` are those of the tensors, whole, that lie in parts on the workers: of these it has
    this worker's. Groups are `model`, `optimizer`, `ranks` (what every rank has of its own) and those of further
    parts of a run. Later steps change nothing in it.
    """

    groups: Mapping[str, TensorGroup]
    progress: str
    epoch: int
    whole: bool
    shapes: Shapes = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """About the size of its checkpoint."""
        return len(self.progress) + sum(bytes_of(group) for group in self.groups.values())


def snapshot(
    groups: Mapping[str, TensorGroup], progress: Progress, shapes: Shapes | None = None
) -> Snapshot:
    """Copy the run's state, to be written while the run goes on."""
    copied = {name: {key: to_host(tensor) for key, tensor in group.items()}
              for name, group in groups.items()}
    return Snapshot(copied, progress.to_json(), progress.epoch, not progress.position.stretches,
                    shapes or {})


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by `<parameter index>.<name>`."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: TensorGroup) -> None:
    """Put back what `optimizer_tensors` gave, whole, wherever the parameters lie."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = like(tensor, parameters[int(index)])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def write(folder: Path, number: int, state: Snapshot, parts: Parts | None = None) -> Path:
    """Write checkpoint `ckpt-<number>` into `folder`, or this rank's part of it.

    Raises:
        TrainingError: a weight is not finite; it is named.
        OSError: the disk is full, or can't be written.
    """
    for name, tensor in state.groups[MODEL].items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TrainingError(Problem(
                rule="weights must stay finite", got=f"NaN or Inf in {name}",
                cure="Lower training.lr, or set training.clip_norm; nothing was checkpointed."))

    if parts is not None and parts.rank > 0:
        return parts.leave(number, state.groups)

    def fill(temporary: Path) -> Mapping[str, Any]:
        for group, tensors in state.groups.items():
            name = f"{group}.safetensors" if parts is None else file_of(group, 0)
            write_tensors(temporary / name, tensors)
        (temporary / "progress.json").write_text(state.progress)
        return parts.take(number, temporary, state.shapes) if parts is not None else {}

    about = {"kind": "checkpoint", "number": number, "epoch": state.epoch, "whole": state.whole}
    return write_folder(at(folder, number), fill, about)


def at(folder: Path, number: int) -> Path:
    """Where a checkpoint lies."""
    return folder / f"ckpt-{number:08d}"


def numbers(folder: Path) -> list[int]:
    """The numbers of the checkpoints in `folder`, whole or not, newest first."""
    if not folder.is_dir():
        return []
    found = [number_of(path.name) for path in folder.iterdir()]
    return sorted((number for number in found if number is not None), reverse=True)


def number_of(name: str) -> int | None:
    """The number in a checkpoint's name; None: it is no such name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def sweep(folder: Path) -> None:
    """Remove what a killed writer left half-written or half-removed."""
    for path in folder.glob(".ckpt-*") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def remove(folder: Path, number: int) -> None:
    """Remove a checkpoint. It is renamed first: half a folder would look like a damaged one."""
    doomed = folder / f".{at(folder, number).name}.old"
    at(folder, number).rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def prune(folder: Path, newest: int = 2) -> None:
    """Keep the `newest` checkpoints, and the best that each of them knows of: what a run falls
    back to when the newest turns out to be damaged."""
    found = numbers(folder)
    keep = set(found[:newest])
    for number in found[:newest]:
        try:
            keep.add(read_progress(at(folder, number)).best_checkpoint)
        except (OSError, ValueError, TypeError, KeyError):
            continue
    for number in found:
        if number not in keep:
            failpoint("checkpoint.during_prune")
            remove(folder, number)


@dataclass(frozen=True)
class Found:
    """The number of the newest checkpoint whose files are all as written (0: there is none), and
    what is wrong with the newer ones."""

    number: int
    damaged: dict[int, str]


def find(folder: Path) -> Found:
    """The newest good checkpoint by its number; times of files say nothing."""
    damaged: dict[int, str] = {}
    for number in numbers(folder):
        if problem := problem_of(folder, number):
            damaged[number] = problem
        else:
            return Found(number, damaged)
    return Found(0, damaged)


def problem_of(folder: Path, number: int) -> str:
    """What is wrong with a checkpoint; nothing when it is good."""
    path = at(folder, number)
    try:
        manifest = verify_folder(path)
        if (manifest.get("kind"), manifest.get("number")) != ("checkpoint", number):
            return f"{path}: its manifest is that of another folder"
        read_progress(path)
    except ArtifactError as error:
        return str(error)
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{path}: it can't be read ({error})"
    return ""


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint whose files are all as written; None: there is none."""
    number = find(folder).number
    return at(folder, number) if number else None


def of_epoch(folder: Path, epoch: int) -> Path:
    """The newest checkpoint of the end of an epoch.

    Raises:
        ArtifactError: there is none.
    """
    for number in numbers(folder):
        try:
            manifest = read_manifest(at(folder, number))
        except ArtifactError:
            continue
        if manifest.get("epoch") == epoch and manifest.get("whole"):
            return at(folder, number)
    raise ArtifactError(f"{folder} holds no checkpoint of epoch {epoch}")


def read_progress(path: Path) -> Progress:
    """What a verified checkpoint says of its run."""
    return Progress.from_json((path / "progress.json").read_text())


def read_group(path: Path, group: str) -> Mapping[str, Tensor]:
    """The tensors of a group of a verified checkpoint, whole; none when it has no such group."""
    if (path / PARTS).exists():
        return Joined(path, group)
    file = path / f"{group}.safetensors"
    tensors: dict[str, Tensor] = load_file(file) if file.exists() else {}
    return tensors


def adopt(source: Path, folder: Path, identity: str) -> Path:
    """Copy a good checkpoint into the `folder` of another run of that `identity`, which goes on from
    its weights and its optimizer's state, without a best epoch yet."""
    progress = replace(read_progress(source), best=None, best_epoch=0, best_checkpoint=0, stale=0,
                       identity=identity)

    def fill(temporary: Path) -> None:
        for path in (*source.glob("*.safetensors"), *source.glob(PARTS)):
            shutil.copyfile(path, temporary / path.name)
        (temporary / "progress.json").write_text(progress.to_json())

    whole = not progress.position.stretches
    about = {"kind": "checkpoint", "number": 1, "epoch": progress.epoch, "whole": whole}
    return write_folder(at(folder, 1), fill, about)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint that are exported, verified: where the run averages them, the
    averages.

    Raises:
        ArtifactError: names the file that changed.
    """
    verify_folder(path)
    return {**read_group(path, MODEL), **read_group(path, EMA)}
