"""Fixtures shared by the rooms' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before Ray is imported: a test's Ray is as private and as quiet as a run's.
from raymill.cluster.environment import DEFAULTS, ensure_token

os.environ |= {key: value for key, value in DEFAULTS.items() if key not in os.environ}


@pytest.fixture(scope="module")
def ray_local() -> Iterator[None]:
    """A Ray instance of this module's own, with 4 CPUs, whatever the machine has."""
    from raymill.cluster.local import ray_session
    from raymill.cluster.spec import ClusterSpec

    ensure_token()
    with ray_session(ClusterSpec(cpus=4)):
        yield
