"""Errors of the connection to another machine."""

from readtrack.errors import ReadtrackError


class Unreachable(Exception):
    """No contact at the moment; retry."""


class Refused(ReadtrackError):
    """The other side cannot do it, and retrying will not help."""
