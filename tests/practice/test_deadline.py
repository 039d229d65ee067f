"""Time limits for the reader's code."""

from __future__ import annotations

import os
import signal
import time

import pytest

from readtrack.practice.deadline import SlowError, deadline


def timers() -> tuple[float, float]:
    return signal.getitimer(signal.ITIMER_PROF)[0], signal.getitimer(signal.ITIMER_REAL)[0]


def ring(*signals: signal.Signals) -> None:
    """Send both timers' signals at once, as if they had expired during one long call."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for one in signals:
        os.kill(os.getpid(), one)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def test_clocks_that_ring_together_leave_no_timer() -> None:
    before = timers()  # the test itself may have a time limit
    with pytest.raises(SlowError), deadline(100, 100):
        ring(signal.SIGALRM, signal.SIGPROF)
    assert timers() == pytest.approx(before, abs=5)
    assert timers()[0] == before[0]


def test_the_clocks_of_an_outer_deadline_stand_still() -> None:
    with deadline(100, 0.2):
        with deadline(100):
            time.sleep(0.4)
        assert 0 < timers()[1] <= 0.2


def stubborn() -> None:
    try:
        while True:
            pass
    except SlowError:
        while True:
            pass


def test_a_loop_that_catches_everything_ends() -> None:
    with pytest.raises(SlowError), deadline(0.05):
        stubborn()
