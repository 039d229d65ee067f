"""Errors that a person can act on: each becomes one line on the terminal, never a traceback."""


class ReadtrackError(Exception):
    """Something the reader can fix. `str(error)` names the cause and the next step.

    `exit_code` is what the command line ends with: 2 for usage or input, 3 for "nothing to do or not
    available".
    """

    exit_code = 2


class NotAvailableError(ReadtrackError):
    """The request is valid, but its object is missing."""

    exit_code = 3
