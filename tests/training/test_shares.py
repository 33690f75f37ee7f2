"""What a worker gets is what some machine can give."""

from __future__ import annotations

import pytest

from raymill.training.distributed import even_share


@pytest.mark.parametrize("nodes, workers, share", [
    ([4.0], 2, 2.0), ([2.0], 4, 0.5), ([0.0, 1.0, 1.0, 1.0], 1, 1.0), ([0.0, 1.0, 1.0], 2, 1.0),
    ([8.0, 2.0], 2, 4.0), ([3.0, 3.0], 3, 1.5), ([], 2, 1.0),
])
def test_a_share_is_one_that_machines_hold(
    nodes: list[float], workers: int, share: float
) -> None:
    assert even_share(nodes, workers) == share
