"""What steps aside has a lower priority than what answers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from raymill.serving.aside import aside, lower, step_aside


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_work_is_done_at_a_lower_priority_and_the_caller_keeps_its_own() -> None:
    before = niceness()
    assert aside(niceness) == lower() > before
    assert niceness() == before
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)


def test_a_process_steps_aside() -> None:
    process = subprocess.Popen([sys.executable, "-ISc", "input()"], stdin=subprocess.PIPE)
    step_aside(process)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == lower()
    process.communicate(b"\n")
    step_aside(process)  # nobody is there any more
