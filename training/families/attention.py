"""Pre-norm transformer blocks. Shapes: B rows, T tokens, W the tokens' width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Attention(nn.Module):
    """Every query `[B, Q, W]` looks at all tokens `[B, T, W]` that the mask `[B, 1, 1, T]` shows."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        split = [self.query(queries), *self.key_value(tokens).chunk(2, dim=-1)]
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in split)
        dropout = self.dropout if self.training else 0.0
        seen = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout)
        output: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return output


class _ReGLU(nn.Module):
    """Half of the features, each where its gate in the other half is open, times the gate."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * torch.relu(gate)


class TransformerBlock(nn.Module):
    """Attention and a ReGLU network, each normalised before and added to what came in.

    Args:
        first: the first block of all: its tokens are not normalised before attention.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        attention_dropout: float,
        dropout: float,
        first: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.Identity() if first else nn.LayerNorm(width)
        self.attention = _Attention(width, heads, attention_dropout)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * hidden), _ReGLU(), nn.Dropout(dropout),
            nn.Linear(hidden, width))

    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, only_first: bool = False
    ) -> Tensor:
        """`[B, T, W]` to the same; `only_first`: the first token alone goes on, `[B, 1, W]`."""
        normed = self.norm(tokens)
        going = slice(0, 1) if only_first else slice(None)
        tokens = tokens[:, going] + self.attention(normed[:, going], normed, mask)
        fed: Tensor = tokens + self.feed(tokens)
        return fed
