"""Turns the result or exception of a command into an exit code and an error message."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from readtrack import __version__
from readtrack.cli import terminal
from readtrack.errors import ReadtrackError

# Advice for errors caused by a full or read-only disk.
_NO_ROOM = {
    errno.ENOSPC: "Free some space and try again.",
    errno.EDQUOT: "Free some of your quota and try again.",
    errno.EROFS: "Set READTRACK_HOME to a writable folder.",
}


def run(command: Callable[[], int | None]) -> int:
    """The exit code of `command`, or of the exception that it raised."""
    terminal.prepare()
    try:
        code = _said(command)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The program that reads our output has closed the pipe. Python flushes stdout again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _said(command: Callable[[], int | None]) -> int:
    try:
        return command() or 0
    except ReadtrackError as error:
        return fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno not in _NO_ROOM:
            return fail(_report_bug(error), 1)
        where = f" {error.filename}" if error.filename else ""
        return fail(f"could not write{where}: {error.strerror}. {_NO_ROOM[error.errno]}", 2)
    except Exception as error:
        return fail(_report_bug(error), 1)


def fail(message: str, code: int) -> int:
    terminal.print_err(f"readtrack: {message}")
    return code


def _report_bug(error: Exception) -> str:
    """The message for an unexpected exception. Its traceback goes to a file."""
    import traceback
    from datetime import UTC, datetime

    from readtrack.home import Home

    what = f"this is a bug in readtrack: {type(error).__name__}: {error}"
    home = Home()
    file = home.root / "logs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    trace = (
        f"readtrack {__version__} {' '.join(sys.argv[1:])}\n\n{''.join(traceback.format_exception(error))}"
    )
    try:
        home.ensure(file.parent)
        file.write_text(trace, encoding="utf-8", errors="replace")
    except (OSError, ReadtrackError):
        return f"{what}\n{trace}"
    return f"{what}. The traceback is in {file}"
