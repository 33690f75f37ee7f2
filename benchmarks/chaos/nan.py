"""NaN or Inf in a training row, or NaN in a weight, planted at seeded steps.

Survived: the run stops with the step, and the row's column and place or the layer, named; at most
one step was taken after; and no checkpoint of the run holds a value that is not finite.
"""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Survival, sized
from raymill.errors import TrainingError
from raymill.training.checkpoint import MODEL, OPTIMIZER, at, numbers, read_group
from raymill.training.loop import fit
from raymill.training.trainer import Trainer

from .small_run import BATCH, SCHEMA, STEPS, Watched, job, shards

EPOCHS = 3


def bad_checkpoints(folder: Path) -> int:
    """How many checkpoints hold a value that is not finite."""
    bad = 0
    for number in numbers(folder):
        groups = [read_group(at(folder, number), group) for group in (MODEL, OPTIMIZER)]
        bad += not all(bool(torch.isfinite(tensor).all())
                       for group in groups for tensor in group.values())
    return bad


def in_a_row(rng: random.Random, folder: Path, value: float) -> dict[str, Any]:
    """A value of a row that a seeded step of a seeded epoch takes."""
    train, validation = shards()
    epoch, step, column = rng.randrange(EPOCHS), rng.randrange(STEPS), rng.randrange(2)
    row = int(train.order(epoch)[step * BATCH + rng.randrange(BATCH)])
    done = 0

    def plant() -> None:
        nonlocal done
        done += 1
        if done == epoch * (STEPS + 1):  # the evaluation at an epoch's end is one batch
            train.tensors["numeric"][row, column] = value

    session = Watched(folder, plant)
    if epoch == 0:
        train.tensors["numeric"][row, column] = value
    said = ""
    try:
        fit(job(epochs=EPOCHS, checkpoint_every=2), train, validation, session)
    except TrainingError as error:
        said = str(error)
    planted_at = epoch * (STEPS + 1) + step
    return {"value": value, "epoch": epoch + 1, "step": step + 1, "row": row, "said": said,
            "named": f"epoch {epoch + 1}, step {step + 1} " in said
            and SCHEMA.numeric[column] in said and f": {row}." in said,
            "steps_after": done - planted_at, "bad_checkpoints": bad_checkpoints(folder)}


def in_a_weight(rng: random.Random, folder: Path) -> dict[str, Any]:
    """A weight after a seeded step, as an optimizer that diverges leaves it."""
    train, validation = shards()
    step = rng.randrange(1, EPOCHS * STEPS - 1)
    taken = 0
    trainer: list[Trainer] = []

    def plant() -> None:
        nonlocal taken
        if trainer[0].feed.position.stretches:  # not in an evaluation
            taken += 1
            if taken == step:
                with torch.no_grad():
                    name, weight = rng.choice(list(trainer[0].model.named_parameters()))
                    weight.view(-1)[-1] = math.nan
                    planted.append(name)

    planted = list[str]()
    session = Watched(folder, plant)
    trainer.append(Trainer(job(epochs=EPOCHS, checkpoint_every=2), train, validation, session,
                           lambda event: None))
    said = ""
    try:
        trainer[0].run()
        trainer[0].keeper.close()
    except TrainingError as error:
        trainer[0].keeper.abandon()
        said = str(error)
    return {"value": math.nan, "after_step": step, "weight": planted[0], "said": said,
            "named": planted[0] in said, "steps_after": taken - step,
            "bad_checkpoints": bad_checkpoints(folder)}


def run() -> Survival:
    rng = random.Random(0)
    outcomes = list[dict[str, Any]]()
    values = [math.nan, math.inf, -math.inf]
    with tempfile.TemporaryDirectory() as place:
        for number in range(sized(60, 6)):
            folder = Path(place) / str(number)
            outcomes.append(in_a_row(rng, folder, values[number // 2 % 3]) if number % 2
                            else in_a_weight(rng, folder))
    good = [o for o in outcomes if o["named"] and o["steps_after"] <= 1
            and not o["bad_checkpoints"]]
    return Survival(
        name="nan", fault="NaN or Inf in a row or a weight", injected=len(outcomes),
        survived=len(good), lost=sum(o["bad_checkpoints"] for o in outcomes),
        goal="named n of n, at most 1 step after; checkpoints that are not finite: 0",
        details={"seed": 0, "most_steps_after": max(o["steps_after"] for o in outcomes),
                 "not_good": [o for o in outcomes if o not in good]},
    )
