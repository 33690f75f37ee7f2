from __future__ import annotations

import math
import random

from raymill.serving.sequential import LEAST, Moments, exceeds, radius, upper_edge


def test_under_the_least_count_nothing_is_shown() -> None:
    few, many = Moments(LEAST - 1, 1.0, 0.0), Moments(10_000, 0.0, 0.0)
    assert radius(few, 0.05) == math.inf and not exceeds(few, many, 0.0, 0.05)


def test_the_radius_shrinks_about_as_the_root_of_the_count() -> None:
    small, large = (radius(Moments(count, 0.0, 1.0), 0.05) for count in (1000, 100_000))
    assert 8 < small / large < 11


def test_a_share_without_a_hit_still_varies() -> None:
    assert Moments.of_share(100, 0).variance > 0


def test_equal_means_looked_at_after_every_observation_are_seldom_told_apart() -> None:
    """Of 200 sequences of 2,000 looks, about one in a thousand may err: a fixed test would err in
    a third of them."""
    rng, wrong = random.Random(0), 0
    for _ in range(200):
        sums = [0.0, 0.0]
        for count in range(1, 2001):
            sums[0] += rng.gauss(0, 1)
            sums[1] += rng.gauss(0, 1)
            a, b = (Moments(count, total / count, 1.0) for total in sums)
            if exceeds(a, b, 0.0, 0.05):
                wrong += 1
                break
    assert wrong <= 200 * 0.05


def test_a_difference_is_found() -> None:
    assert exceeds(Moments(500, 0.5, 1.0), Moments(500, 0.0, 1.0), 0.0, 0.05)
    assert not exceeds(Moments(500, 0.5, 1.0), Moments(500, 0.0, 1.0), 0.5, 0.05)


def test_the_edge_of_a_quantile() -> None:
    assert upper_edge([50, 45, 5, 0], (1.0, 2.0, 3.0), 0.95) == 2.0
    assert upper_edge([0, 0, 0, 9], (1.0, 2.0, 3.0), 0.5) == math.inf
