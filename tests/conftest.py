"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before Ray is imported: a test's Ray is as private and as quiet as a run's.
from raymill.cluster.environment import DEFAULTS, ensure_token

os.environ |= {key: value for key, value in DEFAULTS.items() if key not in os.environ}


TESTS = Path(__file__).parent
START_RAY = {  # in processes of their own; what takes `ray_local` is known by that
    "cluster/test_jobs.py", "cluster/test_local.py", "road/test_readme.py", "road/test_road.py",
    "road/test_refusals.py", "road/test_text.py", "serving/test_reach.py", "serving/test_score.py",
    "serving/test_rollout_service.py", "serving/test_service.py", "tuning/test_kill.py",
    "tuning/test_resources.py",
}
FIRST = {"cluster", "data", "road", "serving"}  # rooms whose tests with Ray take half of the time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 3`: what starts Ray in two processes, module after module, the rest beside it."""
    for item in items:
        module = item.path.relative_to(TESTS)
        ray = module.as_posix() in START_RAY or "ray_local" in getattr(item, "fixturenames", ())
        half = "ray-1" if module.parts[0] in FIRST else "ray-2"
        item.add_marker(pytest.mark.xdist_group(half if ray else module.as_posix()))


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A Ray instance of this module's own, with 4 CPUs, whatever the machine has."""
    from raymill.cluster.local import ray_session
    from raymill.cluster.spec import ClusterSpec

    ensure_token()
    with ray_session(ClusterSpec(cpus=4)):
        yield
