"""Errors of the connection to another machine."""

from readtrack.errors import ReadtrackError


class Unreachable(Exception):
    """No contact at the moment; retry."""


class Refused(ReadtrackError):
    """The remote side cannot fulfil the request, and retrying will not help."""
