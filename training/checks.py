"""What every model must hold, as functions: on made-up rows (`testing`) or the project's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.errors import Problem, RaymillError

from .losses import row_losses
from .shard import TARGET, Batch

ROWS = 8  # that a model must be able to learn by heart
STEPS = 150
RATES = (1e-2, 1e-3)  # learning rates; a model may learn with either
TOLERANCE = 1e-4  # of an output's size, between batches of different sizes


class CheckError(RaymillError):
    """A rule that the model breaks, with what was seen and what to do."""


@dataclass(frozen=True)
class Subject:
    """A model to check, and rows to check it on.

    Attributes:
        make: builds the model with weights that the seed decides.
        batch: at least two rows of the schema's tensors, `target` among them.
        learns: whether it should fit any few rows (a linear model can't).
    """

    make: Callable[[int], nn.Module]
    schema: InputSchema
    batch: Batch
    learns: bool = True

    def model(self, seed: int = 0) -> nn.Module:
        return self.make(seed)

    def rows(self, low: int, high: int) -> Batch:
        """A part of the batch, in memory of its own."""
        return {name: tensor[low:high].clone() for name, tensor in self.batch.items()}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a row."""
        return row_losses(model(batch), batch[TARGET], self.schema).mean()


@dataclass(frozen=True)
class Verdict:
    """A check's name and rule, and what is wrong where it failed."""

    name: str
    rule: str
    problem: Problem | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


def shapes(subject: Subject) -> None:
    """the output is [rows, outputs] and finite, and the batch is left as it was"""
    model = subject.model().eval()
    for rows in (1, min(5, _size(subject.batch))):
        batch, before = subject.rows(0, rows), subject.rows(0, rows)
        output = model(batch)
        if not isinstance(output, Tensor) or output.shape != (rows, subject.schema.outputs):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise _broken(shapes, f"{got} for {rows} rows",
                          f"forward(batch) must return a tensor [{rows}, {subject.schema.outputs}].")
        if not bool(torch.isfinite(output).all()):
            raise _broken(shapes, "NaN or Inf from an untrained model",
                          "Look for a division or logarithm of what may be zero.")
        if changed := [n for n, t in before.items() if n not in batch or not torch.equal(batch[n], t)]:
            raise _broken(shapes, f"{changed[0]!r} changed by forward",
                          "Do not write to the batch: copy it first.")


def gradients(subject: Subject) -> None:
    """every parameter gets a gradient"""
    model, batch = subject.model().train(), subject.rows(0, 64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    without = {name for name, p in model.named_parameters() if p.requires_grad}
    for _ in range(3):  # a layer that starts at zero lets gradients pass from the second step on
        optimizer.zero_grad()
        subject.loss(model, batch).backward()
        without -= {name for name, p in model.named_parameters()
                    if p.grad is not None and bool(p.grad.any())}
        optimizer.step()
    if without:
        raise _broken(gradients, f"none for {', '.join(sorted(without)[:5])}",
                      "Use these parameters in forward, or do not make them: data parallel "
                      "training stops on them.")


def seeded(subject: Subject) -> None:
    """equal seeds build equal models, and train them to equal weights"""
    trained = []
    for _ in range(2):
        model = subject.model().train()
        built = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for step in range(4):
            torch.manual_seed(step)
            optimizer.zero_grad()
            subject.loss(model, subject.rows(0, 32)).backward()
            optimizer.step()
        trained.append((built, model.state_dict()))
    for stage, one, other in zip(("built", "trained"), *trained, strict=True):
        if other_names := [n for n in one if n not in other or not torch.equal(one[n], other[n])]:
            raise _broken(seeded, f"{other_names[0]} differs between two models {stage} alike",
                          "Draw random numbers from torch only, and keep no state between models.")


def alone(subject: Subject) -> None:
    """in eval mode a row's output does not depend on the other rows of its batch"""
    rows = min(17, _size(subject.batch))
    model, batch = subject.model().eval(), subject.rows(0, rows)
    with torch.inference_mode():
        whole = model(batch)
        single = torch.cat([model(subject.rows(i, i + 1)) for i in range(rows)])
    apart = float((whole - single).abs().max()) / max(1.0, float(whole.abs().max()))
    if apart > TOLERANCE:
        raise _broken(alone, f"outputs that differ by {apart:.2g}",
                      "Is there noise in eval mode, or a statistic taken over the batch? Dropout and "
                      "batch norm must be modules, so that eval() reaches them.")


def saved(subject: Subject) -> None:
    """weights come back from a file as they were"""
    model, again = subject.model(0).eval(), subject.model(1).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.safetensors")
        try:
            save_file(model.state_dict(), file)
            again.load_state_dict(load_file(file))
        except (RuntimeError, ValueError, TypeError) as error:
            raise _broken(saved, str(error).strip().split("\n")[0],
                          "Every state_dict entry must be a tensor of its own, with a name that "
                          "does not change.") from error
    batch = subject.rows(0, 4)
    if not torch.equal(model(batch), again(batch)):
        raise _broken(saved, "another output after loading",
                      "Keep all that the output depends on in parameters or buffers.")


def learnt(subject: Subject) -> None:
    """a few rows can be learnt by heart"""
    batch = _different(subject)
    if not subject.learns or _size(batch) < 2:
        return
    falls = []
    for rate in RATES:
        first, lowest = _fit(subject, batch, rate)
        if lowest < first / 4:
            return
        falls.append(f"{first:.3f} to {lowest:.3f}")
    raise _broken(learnt, f"a loss that fell from {' and '.join(falls)} only, in {STEPS} steps of "
                  f"Adam at {' and '.join(f'{rate:g}' for rate in RATES)}",
                  "Does the output depend on every input, with gradients all the way? Is dropout "
                  "very high, or the last layer bounded?")


def _fit(subject: Subject, batch: Batch, rate: float) -> tuple[float, float]:
    """The first loss on the batch and the lowest one, which ends the fit where it suffices."""
    model = subject.model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    first = lowest = float("nan")
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = subject.loss(model, batch)
        loss.backward()
        optimizer.step()
        first = loss.item() if step == 0 else first
        lowest = min(loss.item(), lowest) if step else first
        if lowest < first / 4:
            break
    return first, lowest


def _different(subject: Subject) -> Batch:
    """The first rows whose inputs differ, so that each may have a target of its own."""
    seen: dict[bytes, int] = {}
    inputs = [tensor for name, tensor in subject.batch.items() if name != TARGET]
    for row in range(_size(subject.batch)):
        seen.setdefault(b"".join(t[row].contiguous().numpy().tobytes() for t in inputs), row)
        if len(seen) == ROWS:
            break
    chosen = torch.tensor(list(seen.values()))
    return {name: tensor[chosen] for name, tensor in subject.batch.items()}


def _size(batch: Batch) -> int:
    return len(batch[TARGET])


CHECKS: tuple[Callable[[Subject], None], ...] = (shapes, gradients, seeded, alone, saved, learnt)


def rule_of(check: Callable[..., None]) -> str:
    return (check.__doc__ or "").strip()


def _broken(check: Callable[..., None], got: str, cure: str) -> CheckError:
    return CheckError(Problem(rule=f"{check.__name__}: {rule_of(check)}", got=got, cure=cure))


def verdicts(
    subject: Subject, checks: Sequence[Callable[[Subject], None]] = CHECKS
) -> Iterator[Verdict]:
    """Each check's verdict, as it is there. What the model itself raises is a failure too."""
    for check in checks:
        yield judged(check.__name__, rule_of(check), partial(check, subject))


def judged(name: str, rule: str, run: Callable[[], None]) -> Verdict:
    """The verdict of one check."""
    try:
        run()
    except RaymillError as error:
        return Verdict(name, rule, error.problems[0])
    except Exception as error:  # noqa: BLE001 - the user's model may raise anything
        return Verdict(name, rule, Problem(
            rule=f"{name}: {rule}", got=f"{type(error).__name__}: {str(error).split(chr(10))[0]}",
            cure="Set RAYMILL_DEBUG=1 for the traceback."))
    return Verdict(name, rule)
