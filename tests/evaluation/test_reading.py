from __future__ import annotations

import numpy as np
import pytest

from raymill.evaluation import reading
from raymill.evaluation.reading import chunks, sample, score

from .fakes import binary


# Chunks across files are the split's rows in order.
def test_chunks_are_all_rows_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 77)
    prepared = binary(500)
    parts = list(chunks(prepared, "test"))
    assert max(map(len, parts)) <= 77
    seen = np.concatenate([part["truth"].to_numpy() for part in parts])
    assert (seen == prepared.table("test")["truth"].to_numpy()).all()


# A draw holds rows of the split, each once, always the same ones.
def test_a_draw_is_fixed_and_without_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 77)
    prepared = binary(500)
    one, two = (sample(prepared, "train", 300)["truth"].to_numpy() for _ in range(2))
    assert len(one) == len(np.unique(one)) == 300 and (one == two).all()
    assert np.isin(one, prepared.table("train")["truth"].to_numpy()).all()
    assert len(sample(prepared, "train", 10**6)) == 1000


def test_scores_stand_beside_their_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "CHUNK", 77)
    prepared = binary(500)
    y, scores = score(prepared, "test", {"m": lambda table: table["y"].to_numpy() / 2})
    assert (scores["m"] == y / 2).all() and len(y) == 500
