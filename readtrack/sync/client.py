"""HTTP requests one at a time: throttled, with deadlines, retried where useful, cancelled at once."""

from __future__ import annotations

import os
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit

import readtrack
from readtrack.errors import ReadtrackError
from readtrack.sync.clock import Clock, SyncCancelled
from readtrack.sync.faults import RETRIES, Fault, Kind, classify, looks_like_page, page_title
from readtrack.sync.throttle import ARXIV, HostThrottle
from readtrack.text import format_bytes, format_duration, one_line

if TYPE_CHECKING:
    from readtrack.sync.transfer import ResponseHead, TransferThread

API = "https://export.arxiv.org/api/query"
PDF = "https://export.arxiv.org/pdf"
DOI = "https://doi.org"
CONTACT = "https://info.arxiv.org/help/contact.html"

SILENCE = 70.0  # seconds without a byte, including connecting
DEADLINE = 900.0  # seconds for one file
SHORT_DEADLINE = 120.0  # seconds for feeds and similar files
WINDOW, MIN_RATE = 30.0, 2048  # seconds, and bytes per second required in each such window
MAX_REDIRECTS = 5
_POLL = 0.1
_PAGE = 64 * 1024  # bytes of an error page to examine
_DENIED_FOR = 3600.0
_BLOCKED_FOR = 1200.0  # seconds: minimum duration of arXiv's blocks if it does not state one


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of arXiv. `links`: whether PDF links in its answers may be used if `pdf` truncates files."""

    api: str = API
    pdf: str = PDF
    doi: str = DOI
    links: bool = True

    @classmethod
    def from_environment(cls) -> Endpoints:
        """From READTRACK_ARXIV_API, READTRACK_ARXIV_PDF and READTRACK_DOI, which replace the defaults."""

        def setting(name: str, default: str) -> str:
            link = os.environ.get(name, "").strip().rstrip("/") or default
            if urlsplit(link).scheme not in ("http", "https") or not urlsplit(link).hostname:
                raise ReadtrackError(
                    f"{name} is {link!r}; it must be a link that starts with https:// or http://"
                )
            return link

        pdf = setting("READTRACK_ARXIV_PDF", PDF)
        return cls(setting("READTRACK_ARXIV_API", API), pdf, setting("READTRACK_DOI", DOI), links=pdf == PDF)

    @property
    def arxiv_hosts(self) -> frozenset[str]:
        return frozenset(urlsplit(link).netloc for link in (self.api, self.pdf))


class Sink(Protocol):
    """Receives one body. Every attempt starts with `begin`; all methods may raise Fault."""

    accept: str
    limit: int  # bytes
    deadline: float  # seconds for the body

    @property
    def start(self) -> int:
        """Bytes that are here already. Only the rest is requested; status 206 confirms that."""

    def begin(self, head: ResponseHead) -> None: ...

    def write(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The end of the body: check that it is complete."""


class Bytes:
    """A short body, stored in memory as `data`."""

    deadline = SHORT_DEADLINE
    start = 0

    def __init__(self, accept: str = "*/*", limit: int = 1024 * 1024) -> None:
        self.accept = accept
        self.limit = limit
        self.data = bytearray()

    def begin(self, head: ResponseHead) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def end(self) -> None:
        pass


class Client:
    """Sends requests. `notice` is called for pauses; `patience`: longest accepted Retry-After in seconds."""

    def __init__(
        self,
        gate: HostThrottle,
        clock: Clock,
        cancel: threading.Event,
        *,
        patience: float = 120.0,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        from readtrack.sync.transfer import open_session

        self._gate = gate
        self._clock = clock
        self._cancel = cancel
        self._patience = patience
        self._notice = notice
        self._session = open_session(user_agent())
        self.requests = 0

    def close(self) -> None:
        self._session.close()

    def host(self, url: str) -> str:
        return self._gate.host(url)

    def get(self, url: str, sink: Sink, *, fallback: str | None = None) -> None:
        """Fetch `url` into `sink`; after two truncated files, try `fallback`. Raises Fault, SyncCancelled."""
        tries: Counter[Kind] = Counter()
        while True:
            if tries["truncated"] + tries["incomplete"] == 2:
                url = fallback or url
            try:
                self._follow(url, sink)
            except Fault as fault:
                pauses = RETRIES.get(fault.kind, ())
                number = tries[fault.kind]
                tries[fault.kind] += 1
                last = number >= len(pauses)
                asked = fault.retry_after
                if last or (asked is not None and asked > self._patience):
                    raise self._give_up(url, fault, sum(tries.values())) from None
                pause = pauses[number] * random.uniform(1.0, 1.25) if asked is None else asked
                self._notice(f"{fault}; trying again{f' in {format_duration(pause)}' if pause else ''}")
                self._clock.sleep(pause, self._cancel)
            else:
                self._gate.succeeded(url)
                return

    def _give_up(self, url: str, fault: Fault, tries: int) -> Fault:
        """The final fault for `url`, after blocking the host for as long as necessary."""
        host, text = self.host(url), str(fault)
        if fault.kind == "wait":
            text = self._gate.postpone(url, f"{host} asks us to wait", fault.retry_after or _BLOCKED_FOR)
        elif fault.kind == "denied" and host == ARXIV:
            reason = (
                f"arXiv denied access; do not retry, see {CONTACT}. Listing, `attach` and `add` still work"
            )
            text = self._gate.postpone(url, reason, _DENIED_FOR)
        elif fault.kind in ("tls", "offline", "blocked"):
            self._gate.close(url, text)
        elif fault.kind in ("server", "reset", "timeout", "page", "truncated", "incomplete"):
            text = f"{text}, {tries} times" if tries > 1 else text
            text = self._gate.failed(url, text)
        return Fault(fault.kind, text, retry_after=fault.retry_after, body=fault.body)

    def _follow(self, url: str, sink: Sink) -> None:
        public_only = False
        for _ in range(MAX_REDIRECTS + 1):
            target, was_private = self._once(url, sink, public_only)
            if target is None:
                return
            if urlsplit(target).scheme not in ("http", "https"):
                raise Fault(
                    "link", f"{self.host(url)} redirects to {one_line(target)[:100]}, which is not followed"
                )
            if url.startswith("https:") and not target.startswith("https:"):
                raise Fault("link", f"{self.host(url)} redirects from https to http, which is not followed")
            # The reader's own links may point to private addresses; redirects from public hosts may not.
            public_only = public_only or not was_private
            url = target
        raise Fault("link", f"{self.host(url)} redirects more than {MAX_REDIRECTS} times")

    def _once(self, url: str, sink: Sink, public_only: bool) -> tuple[str | None, bool]:
        """One request.

        Returns the redirect (None if `sink` has the whole body), and whether the host has a private address.
        """
        from readtrack.sync.transfer import ResponseHead, TransferThread

        self._gate.wait(url)
        headers = {"Accept": sink.accept, "Accept-Encoding": "identity"}
        if sink.start:
            headers["Range"] = f"bytes={sink.start}-"
        exchange = TransferThread(self._session, url, headers, public_only=public_only)
        self.requests += 1
        exchange.start()
        try:
            head = self._next(exchange, url)
            assert isinstance(head, ResponseHead)
            # The server has the request by now, so the pause starts here.
            self._gate.asked(url)
            location = head.headers.get("Location")
            if head.status in (301, 302, 303, 307, 308) and location:
                return str(urljoin(url, location)), exchange.is_private
            if head.status != 200 and not (sink.start and head.status == 206):
                raise self._status_fault(head, self._page(exchange, url))
            sink.begin(head)
            for data in self._body(exchange, head, sink):
                sink.write(data)
            sink.end()
            return None, exchange.is_private
        except Exception:
            # The server may have been contacted in any case, so the pause starts here.
            self._gate.asked(url)
            raise
        finally:
            exchange.give_up()

    def _next(self, exchange: TransferThread, url: str) -> ResponseHead | bytes | None:
        """The next message of the transfer. Raises Fault, SyncCancelled."""
        began = self._clock.now()
        while True:
            if self._cancel.is_set():
                raise SyncCancelled
            try:
                message = exchange.messages.get(timeout=_POLL)
            except queue.Empty:
                if self._clock.now() - began > SILENCE:
                    text = f"{self.host(url)} sent nothing for {format_duration(SILENCE)}"
                    raise Fault("timeout", text) from None
                continue
            if isinstance(message, Exception):
                raise classify(message, self.host(url)) from message
            return message

    def _body(self, exchange: TransferThread, head: ResponseHead, sink: Sink) -> Iterator[bytes]:
        length, limit = head.length, sink.limit
        if length is not None and length > limit:
            raise Fault(
                "large", f"larger than allowed ({format_bytes(length)}; at most {format_bytes(limit)})"
            )
        began = window = self._clock.now()
        count = counted = 0
        while True:
            data = self._next(exchange, head.url)
            if data is None:
                break
            assert isinstance(data, bytes)
            count += len(data)
            if count > limit:
                raise Fault("large", f"larger than allowed (at most {format_bytes(limit)})")
            yield data
            now = self._clock.now()
            slow = now - window > WINDOW and count - counted < MIN_RATE * (now - window)
            if slow or now - began > sink.deadline:
                of = f" of {format_bytes(length)}" if length else ""
                text = (
                    f"too slow: gave up after {format_duration(now - began)} with {format_bytes(count)}{of}"
                )
                raise Fault("slow", text)
            if now - window > WINDOW:
                window, counted = now, count
        if length is not None and count != length:
            raise Fault("truncated", f"only {format_bytes(count)} of {format_bytes(length)} arrived")

    def _page(self, exchange: TransferThread, url: str) -> bytes:
        """The beginning of an error page, as much of it as arrives quickly."""
        data, began = b"", self._clock.now()
        while len(data) < _PAGE and self._clock.now() - began < 10:
            try:
                more = self._next(exchange, url)
            except Fault:
                break
            if not isinstance(more, bytes):
                break
            data += more
        return data

    def _status_fault(self, head: ResponseHead, body: bytes) -> Fault:
        host, status = self.host(head.url), head.status
        retry_after = parse_retry_after(head.headers.get("Retry-After"), self._clock.wall())
        page = f", page {page_title(body)}" if looks_like_page(body) else ""
        kind: Kind
        if status == 429:
            kind, text = "wait", f"{host} asks us to wait (429)"
        elif status in (401, 403):
            kind, text = "denied", f"{host} denied access ({status}{page})"
        elif status in (404, 410):
            kind, text = "gone", f"not found at {head.url} ({status})"
        elif status == 400:
            kind, text = "ids", f"{host} rejected the request ({status})"
        elif status in (500, 502, 503, 504):
            kind, text = "server", f"server error at {host} ({status})"
            if retry_after is not None and retry_after > self._patience:
                kind = "wait"
        else:
            kind, text = "refused", f"{host} answered with status {status}{page}"
        return Fault(kind, text, retry_after=retry_after, body=body)


def user_agent() -> str:
    """Our identification; READTRACK_CONTACT adds the reader's contact."""
    contact = one_line(os.environ.get("READTRACK_CONTACT", "")).encode("ascii", "ignore").decode()
    contact = contact.replace("(", "").replace(")", "")[:100].strip()
    return f"readtrack/{readtrack.__version__} (personal reading list{f'; {contact}' if contact else ''})"


def parse_retry_after(text: Any, wall: float) -> float | None:
    """Seconds from now, from a header with seconds or a date. None if it is missing or invalid."""
    if not isinstance(text, str):
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 10**6))
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall)
    except (ValueError, TypeError, OverflowError):
        return None
