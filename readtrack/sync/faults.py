"""Errors of a request, as one class that determines whether to retry."""

from __future__ import annotations

import errno
import html
import re
from collections.abc import Iterator
from typing import Literal

from readtrack.text import one_line

Kind = Literal[
    "wait",  # 429, or 503 with Retry-After
    "server",  # 5xx
    "denied",  # 403, 401
    "gone",  # 404, 410
    "refused",  # any other status
    "page",  # a web page instead of a PDF
    "blocked",  # a web page instead of a feed
    "feed",  # a truncated feed
    "ids",  # 400: the API rejects one of the ids
    "truncated",  # fewer bytes than announced
    "incomplete",  # no length announced, and the end of the PDF is missing
    "slow",
    "reset",  # reset, refused, dropped
    "timeout",
    "offline",  # no name service or no network
    "tls",
    "large",
    "link",  # a link or redirect that is not followed
    "disk",  # ours: full, or not writable
    "closed",  # no request was made: the host is blocked for this sync
]

# Seconds to wait before each retry; other kinds are not retried. The throttle's pause between two
# requests to a host is added.
RETRIES: dict[Kind, tuple[float, ...]] = {
    "wait": (30, 60, 120),
    "server": (5, 10, 20, 40),
    "reset": (0, 0),
    "timeout": (0, 0),
    "truncated": (0, 0, 0),
    "incomplete": (0, 0),
    "offline": (0,),
    "feed": (0,),
    "blocked": (0,),
}

_NO_NETWORK = (errno.ENETUNREACH, errno.ENETDOWN)


class Fault(Exception):
    """`str(fault)` is a sentence without its full stop.

    retry_after: seconds that the server requested; body: the beginning of its response.
    """

    def __init__(self, kind: Kind, text: str, *, retry_after: float | None = None, body: bytes = b"") -> None:
        super().__init__(text)
        self.kind = kind
        self.retry_after = retry_after
        self.body = body


def classify(error: Exception, host: str) -> Fault:
    """The fault for an exception raised by the network libraries."""
    import requests
    from urllib3 import exceptions as u

    if isinstance(error, Fault):
        return error
    causes = list(_chain(error))
    if any(isinstance(cause, requests.exceptions.SSLError | u.SSLError) for cause in causes) or (
        "CA certificate bundle" in str(error)
    ):
        return Fault(
            "tls",
            f"the connection to {host} cannot be trusted ({_reason(causes)}); behind a company proxy, set "
            "REQUESTS_CA_BUNDLE to the file with its certificates",
        )
    if any(isinstance(cause, u.NameResolutionError) for cause in causes):
        return Fault("offline", f"{host} cannot be found: the DNS lookup failed")
    if any(isinstance(cause, OSError) and cause.errno in _NO_NETWORK for cause in causes):
        return Fault("offline", f"there is no network to reach {host}")
    if any(isinstance(cause, requests.exceptions.Timeout | u.TimeoutError) for cause in causes):
        return Fault("timeout", f"{host} did not answer in time")
    for cause in causes:
        if isinstance(cause, u.IncompleteRead):
            return Fault("truncated", f"the connection to {host} was interrupted")
    if any(isinstance(cause, requests.exceptions.ProxyError | u.ProxyError) for cause in causes):
        return Fault("reset", f"the proxy to {host} does not work ({_reason(causes)})")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return Fault("link", f"{one_line(str(error))[:200]} is not a link that can be fetched")
    return Fault("reset", f"the connection to {host} failed ({_reason(causes)})")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and its causes, including the reasons that urllib3 stores as arguments."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [
            arg for arg in (*current.args, getattr(current, "reason", None)) if isinstance(arg, Exception)
        ]
        waiting += [*inner, current.__cause__, current.__context__]


def _reason(causes: list[BaseException]) -> str:
    """The innermost cause in a few words."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return one_line(cause.strerror)[:120]
    return one_line(str(causes[-1]) or type(causes[-1]).__name__)[:120]


def looks_like_page(data: bytes) -> bool:
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(b"<!doctype html") or b"<html" in start


def page_title(data: bytes) -> str:
    """The title of a web page, quoted and safe to print, or "untitled"."""
    found = re.search(rb"<title[^>]*>(.*?)</title>", data, re.IGNORECASE | re.DOTALL)
    title = one_line(html.unescape(found[1].decode("utf-8", "replace"))) if found else ""
    return f'"{title[:80]}"' if title else "untitled"
