"""Errors that the reader can act on: shown as one line on the terminal, never as a traceback."""


class ReadtrackError(Exception):
    """An error that the reader can fix. `str(error)` names the cause and the next step.

    `exit_code` is the exit code of the command: 2 for usage or input, 3 for "nothing to do or not available".
    """

    exit_code = 2


class NotAvailableError(ReadtrackError):
    """The request is valid, but there is nothing to do, or the object does not exist."""

    exit_code = 3
