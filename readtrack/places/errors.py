"""Errors of the connection to another machine."""

from readtrack.errors import ReadtrackError


class Unreachable(Exception):
    """No contact for now: to be tried again."""


class Refused(ReadtrackError):
    """The other side cannot do it, and will not in a minute."""
