"""Quantiles of more values than are kept."""

from __future__ import annotations

import numpy as np
import pytest

from raymill.data.quantiles import K, Quantiles

RANKS = np.linspace(0.01, 0.99, 99)


def of(*parts: np.ndarray) -> Quantiles:  # type: ignore[type-arg]
    total = Quantiles()
    for part in parts:
        one = Quantiles()
        one.add(part)
        total.merge(one)
    return total


def test_few_values_are_exact() -> None:
    values = np.random.default_rng(0).normal(size=K)
    assert np.array_equal(of(*np.array_split(values, 9)).quantiles(RANKS),
                          np.quantile(values, RANKS, method="inverted_cdf"))


@pytest.mark.parametrize("parts", [1, 3, 64])
def test_many_values_are_close_in_rank(parts: int) -> None:
    values = np.random.default_rng(1).lognormal(0, 3, 400_000)
    found = of(*np.array_split(values, parts)).quantiles(RANKS)
    ranks = np.searchsorted(np.sort(values), found) / len(values)
    assert np.abs(ranks - RANKS).max() < 0.003


def test_the_same_values_give_the_same_answer() -> None:
    values = np.random.default_rng(2).normal(size=100_000)
    assert np.array_equal(of(values).quantiles(RANKS), of(values.copy()).quantiles(RANKS))


def test_a_value_that_stands_often_keeps_its_share() -> None:
    values = np.concatenate([np.zeros(70_000), np.arange(1, 30_001)])
    below, upto = of(values).ranks(np.array([0.0]))
    assert below[0] == 0
    assert upto[0] == pytest.approx(0.7, abs=0.002)
