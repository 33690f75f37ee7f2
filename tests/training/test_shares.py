"""What a worker gets is what some machine can give."""

from __future__ import annotations

import pytest

from raymill.training.shares import cpu_share, even_share
from raymill.training.spec import TrainingSpec


@pytest.mark.parametrize("nodes, workers, share", [
    ([4.0], 2, 2.0), ([2.0], 4, 0.5), ([0.0, 1.0, 1.0, 1.0], 1, 1.0), ([0.0, 1.0, 1.0], 2, 1.0),
    ([8.0, 2.0], 2, 4.0), ([3.0, 3.0], 3, 1.5), ([], 2, 1.0),
])
def test_a_share_is_one_that_machines_hold(
    nodes: list[float], workers: int, share: float
) -> None:
    assert even_share(nodes, workers) == share


@pytest.mark.parametrize("training, counted", [
    ({"workers": 2}, 1.0), ({"workers": 8}, 0.25), ({"workers": 1, "cpus_per_worker": 0.5}, 0.5),
    ({"workers": {"max": 8}}, 1), ({"workers": {"max": 2}, "cpus_per_worker": 0.5}, 1),
    ({"workers": {"max": 2}}, 2),
])
def test_what_ray_counts_leaves_room_for_data_or_is_whole(
    training: dict[str, object], counted: float
) -> None:
    assert cpu_share(TrainingSpec.model_validate(training), [4.0])[1] == counted
