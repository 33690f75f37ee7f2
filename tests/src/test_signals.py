"""The first signal asks for an orderly end, the second ends at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from raymill.signals import ENDING, deferred


@pytest.mark.parametrize("signum", ENDING)
def test_the_first_signal_only_asks_and_the_second_interrupts(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with pytest.raises(KeyboardInterrupt), deferred() as asked:
        os.kill(os.getpid(), signum)
        assert asked.wait(5)
        os.kill(os.getpid(), signum)
        threading.Event().wait(5)
    assert signal.getsignal(signum) is before


def test_another_thread_takes_no_signals() -> None:
    seen: list[bool] = []

    def work() -> None:
        with deferred() as asked:
            seen.append(asked.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
