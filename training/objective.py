"""What a model is for: the metric that is optimised, with its direction and its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["binary", "multiclass", "regression"]
CLASSES: tuple[Task, ...] = ("binary", "multiclass")


@dataclass(frozen=True)
class Metric:
    """A metric's name, whether more is better, the tasks it is for, and a line of help."""

    name: str
    maximize: bool
    tasks: tuple[Task, ...]
    help: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", True, CLASSES, "area under the ROC curve (multi-class: mean one-vs-rest)"),
        Metric("average_precision", True, CLASSES, "area under precision over recall (macro mean)"),
        Metric("accuracy", True, CLASSES, "share of rows whose class is right"),
        Metric("balanced_accuracy", True, CLASSES, "mean recall over the classes"),
        Metric("f1", True, CLASSES, "harmonic mean of precision and recall (multi-class: macro)"),
        Metric("precision", True, CLASSES, "share of the alarms that are right (macro mean)"),
        Metric("recall", True, CLASSES, "share of the cases that are found (macro mean)"),
        Metric("log_loss", False, CLASSES, "mean negative log likelihood, in nats"),
        Metric("brier", False, CLASSES, "mean squared error of the probabilities"),
        Metric("rmse", False, ("regression",), "root mean squared error, in the target's unit"),
        Metric("mae", False, ("regression",), "mean absolute error, in the target's unit"),
        Metric("r2", True, ("regression",), "share of the variance explained"),
    )
}
DEFAULT_METRIC: dict[Task, str] = {
    "binary": "roc_auc",
    "multiclass": "accuracy",
    "regression": "rmse",
}
