"""Where the time of a training step goes: `raymill train --profile`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profile

from raymill.errors import Problem, UsageError
from raymill.events import ignore

from .families.base import fitter
from .job import TrainJob
from .placement import SPLITS, fits, hold, shard_of
from .session import InlineSession, pick_device
from .shard import TARGET, Batch
from .trainer import Trainer

if TYPE_CHECKING:
    from raymill.data.prepare import Prepared

WARM, TIMED, TRACED = 5, 40, 10  # steps
TOP = 8
PHASES = ("data", "forward", "backward", "optimizer", "other")


@dataclass(frozen=True)
class Profile:
    """What a step of one worker takes.

    Attributes:
        step_s: seconds of a step. rows: of a step. shares: of the step's time, by phase.
        operations: name, share of the traced time, calls a step and microseconds a call of the
            operations that take most themselves.
        advice: what to change. trace: the steps as a Chrome trace.
    """

    device: str
    threads: int
    rows: int
    step_s: float
    shares: dict[str, float]
    operations: list[dict[str, Any]]
    advice: list[str]
    trace: Path

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "trace": str(self.trace)}


class Clock:
    """Sums the time between marks by the phase that the first of the two began."""

    def __init__(self, device: torch.device) -> None:
        self.spent: dict[str, float] = {}
        self._wait = device.type == "cuda"
        self.restart()

    def restart(self) -> None:
        """Forget what was; the time until the next mark is `other`."""
        self.spent.clear()
        self._phase, self._began = "other", time.perf_counter()

    def mark(self, phase: str) -> None:
        """Another phase begins; on a GPU, when what was asked of it is done."""
        if self._wait:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.spent[self._phase] = self.spent.get(self._phase, 0.0) + now - self._began
        self._phase, self._began = phase, now


def profile(job: TrainJob, prepared: Prepared, folder: Path) -> Profile:
    """Train some steps of the job on one worker in this process, and write `folder/trace.json`.

    Raises:
        UsageError: the loop is the user's own, the family has no steps, or the rows do not fit the object store.
    """
    if job.training.loop is not None:
        raise UsageError(Problem(rule="a profile is of raymill's own loop", got=job.training.loop,
                                 cure="Take training.loop out to profile the model."))
    if fitter(job.family) is not None:
        raise UsageError(Problem(
            rule="a profile times the steps of raymill's own loop",
            got=f"model.family {job.family}, whose trees LightGBM grows without steps",
            cure="Profile a family with gradients: --set model.family=mlp"))
    if not fits(prepared):
        raise UsageError("a profile needs rows that fit in the object store",
                         cure="Give Ray more object store memory, or profile fewer rows.")
    held = hold(prepared)
    train, validation = (shard_of(held, split, 0, job.training.seed) for split in SPLITS)
    device = pick_device(job.training.gpu)
    cpus = job.training.cpus_per_worker or ray.cluster_resources().get("CPU", 1.0)
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(cpus)))
    try:
        one = job.with_training(workers=1, strategy="ddp")
        return measure(Trainer(one, train, validation, InlineSession(device=device), ignore),
                        folder)
    finally:
        torch.set_num_threads(before)


def measure(trainer: Trainer, folder: Path) -> Profile:
    device = trainer.session.device
    clock = Clock(device)
    trainer.stepper.mark = clock.mark
    steps = _steps(trainer)
    _take(trainer, steps, WARM)
    clock.restart()
    rows = _take(trainer, steps, TIMED)
    clock.mark("other")
    spent, whole = dict(clock.spent), sum(clock.spent.values())
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with torch_profile(activities=kinds) as recorded:
        _take(trainer, steps, TRACED)
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace.json"
    recorded.export_chrome_trace(str(trace))
    shares = {phase: spent.get(phase, 0.0) / whole for phase in PHASES}
    operations = _operations(recorded, device)
    return Profile(
        device=str(device), threads=torch.get_num_threads(), rows=round(rows / TIMED),
        step_s=whole / TIMED, shares=shares, operations=operations, trace=trace,
        advice=advise(shares, operations, trainer.job, device.type),
    )


def _steps(trainer: Trainer) -> Iterator[Batch | None]:
    """Batches without end."""
    while True:
        yield from trainer.batches()
        trainer.feed.finish()
        trainer.progress.epoch += 1


def _take(trainer: Trainer, steps: Iterator[Batch | None], count: int) -> int:
    """Train `count` steps; the rows that they had."""
    rows = 0
    for _ in range(count):
        batch = next(steps)
        rows += len(batch[TARGET]) if batch is not None else 0
        trainer.train_step(batch)
    return rows


def _operations(recorded: Any, device: torch.device) -> list[dict[str, Any]]:
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = [event for event in recorded.key_averages() if getattr(event, field) > 0]
    whole = sum(getattr(event, field) for event in events)
    events.sort(key=lambda event: getattr(event, field), reverse=True)
    return [{"name": event.key, "share": getattr(event, field) / whole,
             "calls": event.count / TRACED, "us": getattr(event, field) / event.count}
            for event in events[:TOP]]


def advise(
    shares: dict[str, float], operations: list[dict[str, Any]], job: TrainJob, device: str
) -> list[str]:
    """What would make steps faster, most likely first."""
    said: list[str] = []
    matrix = sum(op["share"] for op in operations
                 if any(part in op["name"] for part in ("mm", "conv", "linear", "gemm")))
    if shares["data"] > 0.2:
        said.append("A fifth or more of the time goes to gathering rows: the model is small for "
                    "them. A wider model costs little; a larger batch_size does not help.")
    if shares["optimizer"] > 0.25:
        said.append("The optimizer takes a quarter or more: a larger training.batch_size takes its "
                    "step less often.")
    calls = sum(op["calls"] for op in operations)
    small = sum(op["calls"] for op in operations if op["us"] < 10)
    if matrix < 0.4 and calls and small / calls > 0.5:
        fused = "" if job.training.compile else ", or fuse them with training.compile: true"
        said.append(f"Most operations are shorter than 10 microseconds, so starting them costs more "
                    f"than what they do: raise training.batch_size{fused}.")
    if matrix >= 0.4:
        if job.training.precision in ("auto", "fp32") and device == "cpu":
            said.append(f"{matrix:.0%} is matrix products: a narrower model, more threads "
                        "(training.cpus_per_worker), a GPU, or precision: bf16 where the CPU has "
                        "instructions for it.")
        elif job.training.precision == "fp32":
            said.append(f"{matrix:.0%} is matrix products in fp32: precision: bf16.")
        else:
            said.append(f"{matrix:.0%} is matrix products, as it should be: only a smaller model or "
                        "more hardware is faster.")
    return said or ["Nothing stands out."]


def summary(profile: Profile) -> str:
    """One screen of text."""
    speed = (f"{profile.step_s * 1e3:.2f} ms a step of {profile.rows:,} rows, "
             f"{profile.rows / profile.step_s:,.0f} rows/s")
    lines = [f"profile of one worker on {profile.device} ({profile.threads} threads): {speed}", ""]
    lines += [f"  {phase:10} {share:6.1%}  {share * profile.step_s * 1e3:8.3f} ms  "
              f"{'#' * round(40 * share)}" for phase, share in profile.shares.items()]
    lines += ["", "  operations that take most      share  calls a step   us a call"]
    lines += [f"  {op['name'][:28]:28} {op['share']:8.1%} {op['calls']:13.1f} {op['us']:11.1f}"
              for op in profile.operations]
    lines += ["", *(f"  - {line}" for line in profile.advice), "",
              f"trace {profile.trace} (open it in https://ui.perfetto.dev)"]
    return "\n".join(lines)
