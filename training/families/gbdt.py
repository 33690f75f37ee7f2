"""Gradient boosted trees: LightGBM's, as a module that answers like any other family's."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raymill.data.schema import InputSchema
from raymill.errors import ArtifactError, Problem
from raymill.training.trees import Forest, parse

if TYPE_CHECKING:
    import lightgbm

FEW = 64  # rows that one thread answers sooner than several


class GBDT(nn.Module):
    """Trees over the numbers, then the categories' indices; zero before it is fitted.

    It has no parameters that a gradient could reach: `training.boosting` grows the trees. Its state
    is their text. How they are grown (`params`) does not change how they answer.
    """

    def __init__(self, schema: InputSchema, **params: Any) -> None:
        super().__init__()
        self.schema = schema
        self.features = len(schema.numeric) + len(schema.categorical)
        self._forest: Forest | None = None

    @property
    def forest(self) -> Forest | None:
        """The trees; None: not fitted."""
        return self._forest

    @forest.setter
    def forest(self, forest: Forest | None) -> None:
        self._forest = forest
        self.__dict__.pop("booster", None)

    @cached_property
    def booster(self) -> lightgbm.Booster:
        import lightgbm

        assert self._forest is not None
        return lightgbm.Booster(model_str=self._forest.text())

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        rows = matrix(batch)
        if self.forest is None:
            return torch.zeros(len(rows), self.schema.outputs)
        device = next(iter(batch.values())).device
        threads = torch.get_num_threads() if len(rows) > FEW else 1
        margins = np.asarray(self.booster.predict(rows, raw_score=True, num_threads=threads))
        return torch.from_numpy(margins.astype(np.float32)).view(len(rows), -1).to(device)

    def get_extra_state(self) -> Tensor:
        text = self.forest.text() if self.forest is not None else ""
        return torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8) if text else (
            torch.zeros(0, dtype=torch.uint8))

    def set_extra_state(self, state: Tensor) -> None:
        try:
            text = state.cpu().numpy().tobytes().decode("ascii")
        except (UnicodeDecodeError, AttributeError) as error:
            raise ArtifactError(Problem(rule="trees are kept as text", got=repr(error))) from error
        self.forest = parse(text, self.features, self.schema.outputs) if text else None


def matrix(batch: dict[str, Tensor]) -> NDArray[np.float32]:
    """`[B, N + C]` of a batch's numbers and category indices."""
    parts = [batch[name].cpu().float() for name in ("numeric", "categorical") if name in batch]
    return np.ascontiguousarray(torch.cat(parts, dim=1).numpy())
