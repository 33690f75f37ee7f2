"""A linear model: logistic or linear regression, softmax for several classes."""

from __future__ import annotations

from torch import Tensor, nn

from raymill.data.schema import InputSchema


class Linear(nn.Module):
    """One weight a number and one a category, as `nn.Embedding` of width `outputs`."""

    def __init__(self, schema: InputSchema) -> None:
        super().__init__()
        self.numbers = nn.Linear(len(schema.numeric), schema.outputs)
        self.categories = nn.ModuleList(
            nn.Embedding(size, schema.outputs) for _, size in schema.categorical
        )
        nn.init.zeros_(self.numbers.weight)
        nn.init.zeros_(self.numbers.bias)
        for table in self.categories:
            nn.init.zeros_(table.weight)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor | None = None
        if "numeric" in batch:
            output = self.numbers(batch["numeric"])
        for index, table in enumerate(self.categories):
            part = table(batch["categorical"][:, index])
            output = part if output is None else output + part
        if output is None:
            raise ValueError("a linear model needs numbers or categories")
        return output if "numeric" in batch else output + self.numbers.bias


