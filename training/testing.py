"""The checks of every model as a pytest suite to inherit, on made-up rows.

    class TestMine(FamilySuite):
        factory = staticmethod(my_project.models.build)
        schemas = (TABLE, IMAGES)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from . import checks

TABLE = InputSchema(("age", "income"), (("job", 6), ("city", 9)), None, "binary", ("no", "yes"))
NUMBERS = InputSchema(("a", "b", "c"), (), None, "regression", None)
CATEGORIES = InputSchema((), (("job", 6),), None, "multiclass", ("x", "y", "z"))
TEXTS = InputSchema((), (), None, "binary", ("no", "yes"), text=(("subject", 20, 5), ("body", 30, 9)))
TEXTS_AND_TABLE = InputSchema(("age",), (("job", 6),), None, "multiclass", ("x", "y", "z"),
                              text=(("body", 30, 9),))
IMAGES = InputSchema((), (), (1, 12, 12), "multiclass", ("x", "y", "z"))
IMAGES_AND_TABLE = InputSchema(("age",), (("job", 6),), (3, 9, 11), "binary", ("no", "yes"))


def random_batch(schema: InputSchema, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """A batch of the schema's shapes, `target` included."""
    draw = torch.Generator().manual_seed(seed)
    batch: dict[str, Tensor] = {}
    if schema.numeric:
        batch["numeric"] = torch.randn(rows, len(schema.numeric), generator=draw)
    if schema.categorical:
        columns = [torch.randint(n, (rows,), generator=draw) for _, n in schema.categorical]
        batch["categorical"] = torch.stack(columns, dim=1)
    if schema.text:
        batch["text"] = _words(schema, rows, draw)
    if schema.image is not None:
        pixels = torch.randint(256, (rows, *schema.image), generator=draw)
        batch["image"] = pixels.to(torch.uint8)
    if schema.task == "regression":
        batch["target"] = torch.randn(rows, generator=draw)
    else:
        batch["target"] = torch.randint(len(schema.classes or ()), (rows,), generator=draw)
    return batch


def _words(schema: InputSchema, rows: int, draw: torch.Generator) -> Tensor:
    """`[rows, L]`: texts of any length, the first without a word."""
    columns, first = [], 2
    for _, words, places in schema.text:
        column = torch.randint(first, first + words, (rows, places), generator=draw)
        column[torch.rand(column.shape, generator=draw) < 0.1] = 1
        lengths = torch.randint(places + 1, (rows, 1), generator=draw)
        lengths[0] = 0
        columns.append(column.masked_fill(torch.arange(places) >= lengths, 0))
        first += words
    return torch.cat(columns, dim=1)


class FamilySuite:
    """Inherit, name the `factory`, its `params` and the `schemas` it is for; pytest runs the rest.

    `learns`: whether the model can fit any eight rows (a linear one can't). `gradients`: whether
    gradients train it; else the suite asks only what does not need them.
    """

    factory: ClassVar[Callable[..., nn.Module]]
    params: ClassVar[Mapping[str, Any]] = {}
    schemas: ClassVar[tuple[InputSchema, ...]] = (TABLE, NUMBERS, CATEGORIES)
    learns: ClassVar[bool] = True
    gradients: ClassVar[bool] = True

    def _on_each_schema(self, check: Callable[[checks.Subject], None]) -> None:
        if not self.gradients and check in (checks.gradients, checks.seeded, checks.learnt):
            return
        for schema in self.schemas:
            make = partial(self._make, schema)
            check(checks.Subject(make, schema, random_batch(schema, 64), self.learns))

    def _make(self, schema: InputSchema, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.factory(schema, **self.params)

    def test_the_output_is_one_row_of_outputs_each(self) -> None:
        self._on_each_schema(checks.shapes)

    def test_every_parameter_gets_a_gradient(self) -> None:
        self._on_each_schema(checks.gradients)

    def test_equal_seeds_build_and_train_equal_models(self) -> None:
        self._on_each_schema(checks.seeded)

    def test_eval_does_not_depend_on_the_batch(self) -> None:
        self._on_each_schema(checks.alone)

    def test_weights_come_back_from_a_file(self) -> None:
        self._on_each_schema(checks.saved)

    def test_a_batch_can_be_learnt(self) -> None:
        self._on_each_schema(checks.learnt)
