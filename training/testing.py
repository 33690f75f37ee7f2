"""What every model must hold, built in or the user's own, as a suite to inherit.

    class TestMine(FamilySuite):
        factory = staticmethod(my_project.models.build)
        schemas = (TABLE, IMAGES)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .losses import row_losses

TABLE = InputSchema(("age", "income"), (("job", 6), ("city", 9)), None, "binary", ("no", "yes"))
NUMBERS = InputSchema(("a", "b", "c"), (), None, "regression", None)
CATEGORIES = InputSchema((), (("job", 6),), None, "multiclass", ("x", "y", "z"))
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
    if schema.image is not None:
        pixels = torch.randint(256, (rows, *schema.image), generator=draw)
        batch["image"] = pixels.to(torch.uint8)
    if schema.task == "regression":
        batch["target"] = torch.randn(rows, generator=draw)
    else:
        batch["target"] = torch.randint(len(schema.classes or ()), (rows,), generator=draw)
    return batch


class FamilySuite:
    """Inherit, name the `factory`, its `params` and the `schemas` it is for; pytest runs the rest.

    `learns`: whether the model can fit any eight rows (a linear one can't).
    """

    factory: ClassVar[Callable[..., nn.Module]]
    params: ClassVar[Mapping[str, Any]] = {}
    schemas: ClassVar[tuple[InputSchema, ...]] = (TABLE, NUMBERS, CATEGORIES)
    learns: ClassVar[bool] = True

    def _make(self, schema: InputSchema, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.factory(schema, **self.params)

    def test_output_is_one_row_of_outputs_each(self) -> None:
        for schema in self.schemas:
            model = self._make(schema).eval()
            for rows in (1, 5):
                output = model(random_batch(schema, rows))
                assert output.shape == (rows, schema.outputs)
                assert bool(torch.isfinite(output).all())

    def test_every_parameter_gets_a_gradient(self) -> None:
        for schema in self.schemas:
            model, batch = self._make(schema).train(), random_batch(schema, 64)
            row_losses(model(batch), batch["target"], schema).mean().backward()
            without = [name for name, p in model.named_parameters() if p.grad is None]
            assert not without, f"no gradient reaches {without}"

    def test_equal_seeds_give_equal_models(self) -> None:
        for schema in self.schemas:
            one, other = self._make(schema).state_dict(), self._make(schema).state_dict()
            assert all(torch.equal(one[name], other[name]) for name in one)

    def test_eval_does_not_depend_on_the_batch(self) -> None:
        for schema in self.schemas:
            model, batch = self._make(schema).eval(), random_batch(schema, 17)
            with torch.inference_mode():
                whole = model(batch)
                rows = [model({k: t[i : i + 1] for k, t in batch.items()}) for i in range(17)]
            assert torch.allclose(whole, torch.cat(rows), atol=1e-5)

    def test_weights_come_back_from_a_file(self, tmp_path: Path) -> None:
        for schema in self.schemas:
            model, again = self._make(schema, 0).eval(), self._make(schema, 1).eval()
            save_file(model.state_dict(), tmp_path / "weights.safetensors")
            again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
            batch = random_batch(schema, 4)
            assert torch.equal(model(batch), again(batch))

    def test_a_batch_can_be_learnt(self) -> None:
        for schema in self.schemas if self.learns else ():
            model, batch = self._make(schema).train(), random_batch(schema, 8)
            if not (schema.numeric or schema.image):  # the same category twice has two targets
                batch["target"] = batch["categorical"][:, 0] % schema.outputs
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
            first = last = float("nan")
            for step in range(150):
                optimizer.zero_grad()
                loss = row_losses(model(batch), batch["target"], schema).mean()
                loss.backward()
                optimizer.step()
                last = loss.item()
                first = last if step == 0 else first
            assert last < first / 4, f"the loss fell from {first:.3f} to {last:.3f} only"
