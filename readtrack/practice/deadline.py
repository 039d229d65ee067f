"""A limit on the time that a stranger's code may take. For a child process only: it uses alarm signals."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN = 1.0  # seconds between two exceptions: a loop may catch the first


class SlowError(BaseException):
    """The time is over. Not an Exception, which the reader's code might catch."""


@contextmanager
def deadline(seconds: float, waiting: float = math.inf) -> Iterator[None]:
    """Raise SlowError in the main thread when the time is over, and every second from then on. The clocks of
    an outer deadline stand still meanwhile.

    seconds  of this process's calculation, which others on the machine do not lengthen
    waiting  of the wall clock
    """
    last, open_ = -math.inf, True

    def over(number: int, frame: FrameType | None) -> None:
        # Both clocks may ring at once: a second exception would come up in the clean-up after the first.
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
