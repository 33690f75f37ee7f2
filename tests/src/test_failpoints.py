"""A failpoint fires on the pass it was told, and only when the environment names it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from raymill.failpoints import failpoint, parse

LOOP = """
from raymill.failpoints import failpoint
for step in range(5):
    print(step, flush=True)
    failpoint("a.b")
"""


def _loop(rule: str) -> tuple[int, list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", LOOP], env=os.environ | {"RAYMILL_FAIL": rule},
        capture_output=True, text=True, check=False,
    )
    return done.returncode, done.stdout.split(), done.stderr


def test_it_does_nothing_unless_told() -> None:
    failpoint("a.b")
    assert _loop("c.d:kill@1") == (0, ["0", "1", "2", "3", "4"], "")


def test_it_kills_on_the_nth_pass() -> None:
    code, steps, _ = _loop("a.b:kill@3")
    assert (code, steps) == (-signal.SIGKILL, ["0", "1", "2"])


def test_it_raises_when_told() -> None:
    code, steps, errors = _loop("a.b:raise@2")
    assert (code, steps) == (1, ["0", "1"])
    assert "FailpointError: failpoint a.b" in errors


def test_several_rules_are_parted_by_commas() -> None:
    assert parse("a:kill@1, b.c:raise@12") == {"a": ("kill", 1), "b.c": ("raise", 12)}


@pytest.mark.parametrize("text", ["a", "a:kill", "a:stop@1", "a:kill@0", "A:kill@1"])
def test_a_malformed_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="name:kill@n"):
        parse(text)
