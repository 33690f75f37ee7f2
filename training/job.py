"""All that a worker needs to know to train a model, as plain data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from raymill.data.schema import InputSchema
from raymill.errors import Problem, SpecError

from .auto import AUTO, without_choice
from .objective import DEFAULT_METRIC, METRICS
from .params import INPUTS, needed
from .rules import task_problems
from .spec import ModelSpec, TrainingSpec

# A run goes on when they change.
EXECUTION = {"max_failures", "cpus_per_worker", "workers", "strategy", "guard_every",
             "checkpoint_every", "watchdog"}
MEANS = {"table": "a column of numbers or categories", "text": "a text column",
         "image": "an image column"}


@dataclass(frozen=True)
class TrainJob:
    """A family with its parameters, how it is trained, and what on.

    `project` is the folder that the user's own modules are imported from; None: no own code.
    `start` is the checkpoint whose weights training begins with; None: weights drawn by the seed.
    """

    family: str
    params: dict[str, Any]
    training: TrainingSpec
    metric: str
    schema: InputSchema
    project: str | None = None
    start: str | None = None

    @property
    def maximize(self) -> bool:
        return METRICS[self.metric].maximize

    def with_training(self, **changes: Any) -> TrainJob:
        """The same job with other training values."""
        return replace(self, training=self.training.model_copy(update=changes))

    def said(self) -> dict[str, Any]:
        """What decides the weights: all but where the project lies and how execution goes."""
        training = self.training.model_dump(mode="json", exclude=EXECUTION)
        return {**self.to_dict(), "training": training, "project": None}

    def identity(self, rows: int) -> str:
        """Names the run of this job on `rows` training rows: a checkpoint of another is not its."""
        facts = {**self.said(), "rows": rows}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "params": self.params,
            "training": self.training.model_dump(mode="json"),
            "metric": self.metric,
            "schema": self.schema.to_dict(),
            "project": self.project,
            **({"start": self.start} if self.start is not None else {}),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> TrainJob:
        return cls(
            family=state["family"],
            params=state["params"],
            training=TrainingSpec.model_validate(state["training"]),
            metric=state["metric"],
            schema=InputSchema.from_dict(state["schema"]),
            project=state["project"],
            start=state.get("start"),
        )


def make_job(
    model: ModelSpec,
    training: TrainingSpec,
    metric: str | None,
    schema: InputSchema,
    project: str | None,
) -> TrainJob:
    """Fill in what the spec leaves to the data: the family, its defaults, the metric.

    Raises:
        SpecError: the family can't take these inputs, or the task not this training.
    """
    if problems := task_problems(training, schema.task, schema.classes):
        raise SpecError(problems)
    family = without_choice(schema, training) if model.family == AUTO else model.family
    _check_inputs(family, schema)
    if family == "gbdt" and training.gpu == "require":
        raise SpecError(Problem(rule="model.family gbdt grows its trees on the CPU",
                                got="training.gpu: require", cure="Set training.gpu to auto."))
    return TrainJob(
        family=family, params=model.resolved(family), training=training,
        metric=metric or DEFAULT_METRIC[schema.task], schema=schema, project=project,
    )


def _check_inputs(family: str, schema: InputSchema) -> None:
    """A family must have what it needs, and must read all that there is."""
    if family not in INPUTS or _reads_all(family, schema):
        return  # or it is the user's own
    there = set(schema.inputs)
    unread = [MEANS[name] for name in schema.inputs if name not in INPUTS[family]]
    fitting = [name for name in INPUTS if _reads_all(name, schema)]
    cure = f"Take {' or '.join(fitting)}" if fitting else "Write a factory of your own"
    if not there & set(needed(family)):
        raise SpecError(Problem(
            rule=f"model.family {family} needs {' or '.join(MEANS[n] for n in needed(family))}",
            got=" and ".join(MEANS[name] for name in schema.inputs), cure=f"{cure}."))
    raise SpecError(Problem(
        rule=f"model.family {family} must be able to read every column", got=" and ".join(unread),
        cure=f"{cure}, or give the column the kind ignore."))


def _reads_all(family: str, schema: InputSchema) -> bool:
    return set(schema.inputs) <= set(INPUTS[family]) and bool(
        set(needed(family)) & set(schema.inputs))
