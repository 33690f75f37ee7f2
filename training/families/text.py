"""A network over texts and the row's other columns, trained from scratch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from raymill.data.schema import InputSchema

from .attention import TransformerBlock
from .embeddings import PADDING, WORD_SCALE, Columns

UNKNOWN = 1
REACH = 3  # words that a convolution sees at once
FEED = 2  # the transformer's inner layer: so many times its width


class _Convolution(nn.Module):
    """Each word's vector and its neighbours', normalised before, added to what came in."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, REACH, padding=REACH // 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        inner = (self.norm(x) * words).transpose(1, 2)
        added: Tensor = x + self.dropout(torch.relu(self.mix(inner)).transpose(1, 2))
        return added


class _Transformer(nn.Module):
    """A pre-norm transformer block that does not look at padding."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.block = TransformerBlock(width, heads, FEED * width, dropout, dropout)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        shown = words.squeeze(-1).bool()
        shown = shown | ~shown.any(dim=1, keepdim=True)  # a text without words looks at padding
        block: Tensor = self.block(x, shown[:, None, None, :])
        return block


class _Encoder(nn.Module):
    """A text `[B, L]` to `[B, 2 * width]`: the mean and the maximum over its words' vectors, after
    `blocks` that mix them in their order; zeros for a text without words."""

    def __init__(self, length: int, width: int, blocks: list[nn.Module], places: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.places: nn.Parameter | None = None
        if places:
            self.places = nn.Parameter(torch.randn(length, width) * WORD_SCALE)

    def forward(self, vectors: Tensor, text: Tensor) -> Tensor:
        words = (text != PADDING).unsqueeze(-1).to(vectors.dtype)
        x = vectors if self.places is None else vectors + self.places
        for block in self.blocks:
            x = block(x, words)
        mean = (x * words).sum(dim=1) / words.sum(dim=1).clamp(min=1)
        most = x.masked_fill(words == 0, -torch.inf).amax(dim=1)
        return torch.cat([mean, torch.where(words.any(dim=1), most, 0.0)], dim=1)


class TextNet(nn.Module):
    """Word vectors, for each text column an encoder over its words, and a hidden layer over the
    texts beside the row's numbers and categories.

    `convolution` is after Kim, "Convolutional Neural Networks for Sentence Classification" (2014),
    with residual layers; `none` takes the words without their order. While training, a share
    `word_dropout` of the words is not known, so that unknown words are nothing new.
    """

    def __init__(
        self,
        schema: InputSchema,
        encoder: Literal["convolution", "transformer", "none"],
        width: int,
        blocks: int,
        heads: int,
        word_dropout: float,
        dropout: float,
        hidden: int,
        embedding: int,
    ) -> None:
        super().__init__()
        if not schema.text:
            raise ValueError("the family text needs a text column")
        self.lengths, self.word_dropout = schema.places, word_dropout
        self.vectors = nn.Embedding(schema.vocabulary, width, padding_idx=PADDING)
        nn.init.normal_(self.vectors.weight, std=WORD_SCALE)

        def block() -> nn.Module:
            if encoder == "transformer":
                return _Transformer(width, heads, dropout)
            return _Convolution(width, dropout)

        count = 0 if encoder == "none" else blocks
        self.encoders = nn.ModuleList(
            _Encoder(length, width, [block() for _ in range(count)], encoder == "transformer")
            for length in self.lengths)
        self.columns = Columns(schema, embedding, words=0)
        wide = 2 * width * len(self.lengths) + self.columns.width
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(wide, hidden), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(hidden, schema.outputs))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        text = batch["text"]
        if self.training and self.word_dropout:
            hidden = (torch.rand(text.shape, device=text.device) < self.word_dropout)
            text = text.masked_fill(hidden & (text != PADDING), UNKNOWN)
        columns = text.split(self.lengths, dim=1)
        parts = [encode(self.vectors(column), column)
                 for encode, column in zip(self.encoders, columns, strict=True)]
        output: Tensor = self.head(torch.cat([*parts, *self.columns(batch)], dim=1))
        return output
