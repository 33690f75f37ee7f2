"""Which families `model.family: auto` stands for."""

from __future__ import annotations

from collections.abc import Collection

from raymill.data.schema import InputSchema

from .params import FOLLOWED, follows
from .spec import TrainingSpec

AUTO = "auto"
TABLES = ("gbdt", "mlp")
TEXTS = ("text",)
IMAGES = ("cnn",)


def candidates(schema: InputSchema, training: TrainingSpec) -> tuple[str, ...]:
    """The families that a search chooses among: what is best most often comes first.

    A loop of the user's own, or a GPU that must be used, is for families with gradients.
    """
    if schema.image is not None:
        return IMAGES
    if schema.text:
        return TEXTS
    gradients = training.loop is not None or training.gpu == "require"
    return tuple(family for family in TABLES if not (gradients and family in FOLLOWED))


def without_choice(
    schema: InputSchema, training: TrainingSpec, searched: Collection[str] = ()
) -> str:
    """The family that is taken where no search chooses: the first candidate that follows all
    that `training` changes, and all the fields of it that are `searched`."""
    wanted = training.changed | {path.removeprefix("training.") for path in searched
                                 if path.startswith("training.")}
    families = candidates(schema, training)
    fit = [family for family in families if all(follows(family, field) for field in wanted)]
    return (fit or families[-1:])[0]


def why(family: str, training: TrainingSpec) -> str:
    """Why `without_choice` took `family`, in words."""
    if family == TABLES[0]:
        return "without a search: trees do well on most tables, in seconds"
    if family in IMAGES + TEXTS:
        return f"the data has {'images' if family in IMAGES else 'free text'}"
    unheeded = sorted(field for field in training.changed if not follows(TABLES[0], field))
    return f"{TABLES[0]} does not use training.{', training.'.join(unheeded)}" if unheeded else (
        f"{TABLES[0]} grows on the CPU, without a loop of one's own")
