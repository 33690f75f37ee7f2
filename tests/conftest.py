"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A Ray instance of this module's own."""
    import ray

    ray.init(address="local", num_cpus=4, log_to_driver=False, dashboard_host="127.0.0.1")
    yield
    ray.shutdown()
