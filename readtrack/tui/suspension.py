"""Lends the terminal to another program: an editor or a picture viewer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readtrack.tui.shell import Shell

_FROM_KEYS = (signal.SIGINT, signal.SIGQUIT)  # Ctrl+C and Ctrl+\ reach every process of the terminal


class _TerminalGoneError(Exception):
    pass


@contextmanager
def suspended(shell: Shell) -> Iterator[None]:
    """Within this context, another program has the terminal. Afterwards the app returns, even after an error.

    Ctrl+C reaches the other program and does not end the app. If the terminal is closed, the other program
    gets the signal, and the app does not return: its own handler, which asyncio calls next, ends it.

    Raises SuspendNotSupported without a terminal.
    """
    gone = False

    def hang_up(number: int, _: object) -> None:
        nonlocal gone
        if not gone:
            gone = True
            os.killpg(os.getpgrp(), number)  # the kernel signals only the session leader

    before = {number: signal.signal(number, lambda *_: None) for number in _FROM_KEYS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
    failure: Exception | None = None
    try:
        with shell.suspend():
            # Textual resumes only if nothing is raised inside its context.
            try:
                yield
            except Exception as error:
                failure = error
            if gone:
                raise _TerminalGoneError
    except _TerminalGoneError:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failure is not None:
        raise failure
