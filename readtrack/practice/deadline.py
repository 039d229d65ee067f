"""A time limit for untrusted code. Use it in child processes only, because it relies on alarm signals."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 1.0  # seconds between two exceptions, because a loop may catch the first


class SlowError(BaseException):
    """The time is up. Not an Exception, because the reader's code might catch that."""


@contextmanager
def deadline(seconds: float, waiting: float = math.inf) -> Iterator[None]:
    """Raise SlowError in the main thread after the time limit and every second from then on.

    The clocks of an outer deadline are paused meanwhile.

    seconds  CPU time of this process, which does not depend on other processes
    waiting  wall time
    """
    last, open_ = -math.inf, True

    def over(number: int, frame: FrameType | None) -> None:
        # Both clocks may fire at once; a second exception would interrupt the clean-up after the first.
        nonlocal last
        if open_ and time.monotonic() - last > _AGAIN / 2:
            last = time.monotonic()
            raise SlowError

    clocks = (
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
        (signal.SIGALRM, signal.ITIMER_REAL, 0.0 if math.isinf(waiting) else waiting),
    )
    before = [
        (signal.signal(sign, over), signal.setitimer(clock, limit, _AGAIN)) for sign, clock, limit in clocks
    ]
    try:
        yield
    finally:
        open_ = False
        for (sign, clock, _), (handler, timer) in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(sign, handler)
            signal.setitimer(clock, *timer)
