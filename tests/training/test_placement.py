"""Where the workers find their rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymill.training.placement import hold, holding

from .samples import prepared


@pytest.mark.usefixtures("ray_local")
def test_rows_are_made_once_while_they_are_held(tmp_path: Path) -> None:
    data = prepared(tmp_path)
    with holding(data):
        first = hold(data)
        assert hold(data) is first
    assert hold(data) is not first
