"""What a spec asks of the training that its task can't give. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

from raymill.errors import Problem

from .objective import Task
from .spec import TrainingSpec

FOR_CLASSES = ("cross_entropy", "focal")
FOR_NUMBERS = ("mse", "mae", "huber", "quantile")


def task_problems(
    training: TrainingSpec, task: Task, classes: Sequence[str] | None
) -> list[Problem]:
    """Every one of them."""
    losses = FOR_NUMBERS if task == "regression" else FOR_CLASSES
    problems = []
    if training.loss not in ("auto", *losses):
        problems.append(Problem(rule=f"training.loss must be one for a {task} task",
                                got=training.loss, cure=f"Take one of {', '.join(losses)}."))
    if task == "regression":
        asked = {"class_weights": training.class_weights != "none",
                 "resample": training.resample != "none",
                 "label_smoothing": training.label_smoothing > 0}
        return problems + [Problem(rule=f"training.{key} needs a class task", got=task,
                                   cure=f"Take {key} out.") for key, is_asked in asked.items()
                           if is_asked]
    weights = training.class_weights
    named = set(weights) if isinstance(weights, dict) else set()
    if classes and (unknown := sorted(named - set(classes))):
        problems.append(Problem(rule="training.class_weights names classes of the target",
                                got=", ".join(unknown),
                                cure=f"The classes are {', '.join(classes)}."))
    return problems
