"""What the tensors of a transformed row are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .spec import Task


@dataclass(frozen=True)
class InputSchema:
    """Names and shapes of the tensors that a transform gives and a model takes.

    Attributes:
        numeric: names of the N columns of `numeric [B, N]` float32.
        categorical: name and cardinality of the C columns of `categorical [B, C]` int64; 0 is an
            unknown category, 1 a missing one, and the cardinality counts both.
        image: `(channels, height, width)` of `image [B, channels, height, width]` uint8.
        text: name, number of known words and of places of each column of `text [B, L]` int64; L
            is the sum of the places, column by column. 0 is padding, 1 a word not known, then come
            the columns' words, column by column.
        classes: names by class index; None for regression.
        target_mean, target_std: of the training targets; a regression target is standardised.
    """

    numeric: tuple[str, ...]
    categorical: tuple[tuple[str, int], ...]
    image: tuple[int, int, int] | None
    task: Task
    classes: tuple[str, ...] | None
    target_mean: float = 0.0
    target_std: float = 1.0
    text: tuple[tuple[str, int, int], ...] = ()

    @property
    def outputs(self) -> int:
        """Width of a model's output: a logit a class, or one number."""
        if self.task == "multiclass" and self.classes is not None:
            return len(self.classes)
        return 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """Which of `table` (numbers, categories), `text` and `image` there are."""
        there = {"table": bool(self.numeric or self.categorical), "text": bool(self.text),
                 "image": self.image is not None}
        return tuple(name for name, has in there.items() if has)

    @property
    def vocabulary(self) -> int:
        """How many numbers `text` may hold: all columns' words, padding and the unknown word."""
        return 2 + sum(words for _, words, _ in self.text)

    @property
    def places(self) -> list[int]:
        """The width of each column's part of `text`."""
        return [length for _, _, length in self.text]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> InputSchema:
        return cls(
            numeric=tuple(state["numeric"]),
            categorical=tuple((name, int(size)) for name, size in state["categorical"]),
            image=tuple(state["image"]) if state["image"] is not None else None,
            task=state["task"],
            classes=tuple(state["classes"]) if state["classes"] is not None else None,
            target_mean=float(state["target_mean"]),
            target_std=float(state["target_std"]),
            text=tuple((name, int(words), int(length))
                       for name, words, length in state.get("text", ())),
        )
