"""Free text for the baselines: hashed words weighted by TF-IDF, and their main directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

from .measures import Array

HASHED = 2**15  # numbers that a column's words are hashed to
DIRECTIONS = 50  # that boosting sees of a text, which takes no sparse matrix
SEEN = 20_000  # texts that the directions are found on


@dataclass(frozen=True)
class Words:
    """Fitted on training rows; independent of the model's own vocabulary."""

    names: tuple[str, ...]
    hashing: Any
    weights: tuple[Any, ...]
    directions: tuple[Any, ...]

    @classmethod
    def fit(cls, table: pa.Table, names: Sequence[str]) -> Words:
        hashing = HashingVectorizer(n_features=HASHED, alternate_sign=False,
                                    token_pattern=r"(?u)\w+|[^\w\s]", norm=None)
        weights, directions = [], []
        for name in names:
            counts = hashing.transform(_texts(table, name))
            weights.append(TfidfTransformer(sublinear_tf=True).fit(counts))
            some = weights[-1].transform(counts[:SEEN])
            directions.append(TruncatedSVD(DIRECTIONS, random_state=0).fit(some))
        return cls(tuple(names), hashing, tuple(weights), tuple(directions))

    @property
    def width(self) -> int:
        return HASHED * len(self.names)

    def sparse(self, table: pa.Table) -> list[Any]:
        """A sparse `[N, HASHED]` for each column."""
        return [weight.transform(self.hashing.transform(_texts(table, name)))
                for name, weight in zip(self.names, self.weights, strict=True)]

    def dense(self, table: pa.Table) -> list[Array]:
        """`[N, DIRECTIONS]` for each column."""
        return [np.asarray(directions.transform(words), dtype=np.float64)
                for directions, words in zip(self.directions, self.sparse(table), strict=True)]


def _texts(table: pa.Table, name: str) -> list[str]:
    return [text or "" for text in table[name].to_pylist()]
