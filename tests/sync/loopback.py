"""A local arXiv: its query API and its PDFs, with a scripted fault for any request.

Used by tests. `python tests/sync/loopback.py [--port 8123] [--speed BYTES]` serves every id and prints the
environment variables that make readtrack use it.
"""

from __future__ import annotations

import re
import socket
import socketserver
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape, quoteattr

FEED = """<?xml version='1.0' encoding='UTF-8'?>
<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" xmlns:arxiv="http://arxiv.org/schemas/atom" \
xmlns="http://www.w3.org/2005/Atom">
  <id>https://arxiv.org/api/loopback</id>
  <title>arXiv Query</title>
  <updated>2026-04-12T22:09:36Z</updated>
  <opensearch:itemsPerPage>{count}</opensearch:itemsPerPage>
  <opensearch:totalResults>{total}</opensearch:totalResults>
  <opensearch:startIndex>0</opensearch:startIndex>
{entries}</feed>
"""
ENTRY = """  <entry>
    <id>http://arxiv.org/abs/{id}v{version}</id>
    <title>{title}</title>
    <updated>2020-01-02T00:00:0{version}Z</updated>
    <link href="https://arxiv.org/abs/{id}v{version}" rel="alternate" type="text/html"/>
    {link}
    <summary>{abstract}</summary>
    <category term="cs.LG" scheme="http://arxiv.org/schemas/atom"/>
    <published>2017-06-12T17:57:34Z</published>
    {comment}
    <arxiv:primary_category term="cs.LG"/>
    <author>
      <name>Ada Example</name>
    </author>
    <author>
      <name>Grace Example</name>
    </author>
  </entry>
"""
BAD_ID = """<?xml version='1.0' encoding='UTF-8'?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <id>https://arxiv.org/</id>
  <title>arXiv Search Results</title>
  <entry>
    <id>https://arxiv.org/api/errors#incorrect_id_format_for_{id}</id>
    <title>Error</title>
    <summary>incorrect id format for {id}</summary>
  </entry>
</feed>
"""
PAGE = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Are you a robot?</body></html>"
)


@dataclass
class Paper:
    """The server's data for one id. `pdfs`: the versions with a PDF (None: all)."""

    title: str = ""
    abstract: str = "  We show\nthat it works.\n  And that it does so twice."
    version: int = 1
    comment: str = ""
    pdfs: set[int] | None = None
    link: str | None = ""  # the PDF link in the feed: "" for the usual one, None for none


@dataclass(frozen=True)
class Request:
    """A received request. `at`: its time by the current clock; `others`: other open connections."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at: float
    others: int

    @property
    def ids(self) -> list[str]:
        return self.query.get("id_list", "").split(",")


def pdf_bytes(name: str, size: int = 60_000) -> bytes:
    """A valid PDF with one empty page and a unique comment."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] >>",
    ]
    data = b"%PDF-1.4\n%" + name.encode() + b"\n"
    filler = (name.encode() * (size // len(name) + 1))[: max(0, size - 400)]
    data += b"".join(b"%" + filler[start : start + 70] + b"\n" for start in range(0, len(filler), 70))
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    xref = len(data)
    data += b"xref\n0 4\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return data + b"trailer\n<< /Size 4 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % xref


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    timeout = 60

    def do_GET(self) -> None:
        server = self.server
        parts = urlsplit(self.path)
        request = Request(
            path=parts.path,
            query={key: values[0] for key, values in parse_qs(parts.query).items()},
            headers={key.lower(): value for key, value in self.headers.items()},
            at=server.now(),
            others=server.other_connections(self.connection),
        )
        with server.lock:
            server.requests.append(request)
        fault = server.next_fault(request)
        if fault is not None:
            fault(self, request)
        else:
            self.serve(request)

    def serve(self, request: Request) -> None:
        """Send the correct response."""
        if request.path.endswith("/query"):
            self.feed(request.ids)
            return
        found = re.fullmatch(r"/pdf/(.+)v(\d+)", request.path)
        paper = self.server.paper(found[1]) if found else None
        if found and paper and (paper.pdfs is None or int(found[2]) in paper.pdfs):
            self.pdf(self.server.pdf(f"{found[1]}v{found[2]}"))
        elif request.path in self.server.files:
            self.pdf(self.server.files[request.path])
        else:
            self.answer(404, b"<html><title>404 Not Found</title></html>", {"Content-Type": "text/html"})

    def feed(
        self, ids: Iterable[str], *, total: int | None = None, change: Callable[[bytes], bytes] = lambda b: b
    ) -> None:
        entries = []
        for one in ids:
            found = re.fullmatch(r"((?:\d{4}\.\d{4,5})|(?:[a-z-]+/\d{7}))(?:v(\d+))?", one)
            if found is None:
                body = BAD_ID.format(id=escape(one)).encode()
                self.answer(400, body, {"Content-Type": "application/atom+xml; charset=utf-8"})
                return
            paper = self.server.paper(found[1])
            if paper is None:
                continue
            version = int(found[2] or paper.version)
            link = f"https://arxiv.org/pdf/{found[1]}v{version}" if paper.link == "" else paper.link
            shown = (
                f'<link href={quoteattr(link)} rel="related" type="application/pdf" title="pdf"/>'
                if link
                else ""
            )
            comment = f"<arxiv:comment>{escape(paper.comment)}</arxiv:comment>" if paper.comment else ""
            entries.append(
                ENTRY.format(
                    id=found[1],
                    version=version,
                    title=escape(paper.title or f"Paper {found[1]}"),
                    abstract=escape(paper.abstract),
                    link=shown,
                    comment=comment,
                )
            )
        text = FEED.format(
            count=len(entries), total=len(entries) if total is None else total, entries="".join(entries)
        )
        self.answer(200, change(text.encode()), {"Content-Type": "application/atom+xml; charset=utf-8"})

    def pdf(self, data: bytes) -> None:
        self.begin(200, {"Content-Type": "application/pdf", "Content-Length": str(len(data))})
        step = self.server.step
        for start in range(0, len(data), step):
            self.wfile.write(data[start : start + step])
            if self.server.pause:
                time.sleep(self.server.pause)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.begin(status, {**(headers or {}), "Content-Length": str(len(body))})
        self.wfile.write(body)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def drop(self) -> None:
        """Close the connection normally."""
        self.close_connection = True

    def reset(self) -> None:
        """Reset the connection, as a crashing server or a broken line does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        if self.server.verbose:
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self.path[:120]}\n")


Fault = Callable[[Handler, Request], None]


@dataclass
class Script:
    """Faults for requests whose path ends with `path`, one per request in this order; the last may be
    permanent.
    """

    path: str
    faults: list[Fault]
    forever: bool = False

    def next(self) -> Fault | None:
        if self.forever and len(self.faults) == 1:
            return self.faults[0]
        return self.faults.pop(0) if self.faults else None


class Server(socketserver.ThreadingTCPServer):
    """`now` stamps the requests. Every id is known unless `papers` is set, and every known id has its PDF."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, now: Callable[[], float] = time.monotonic, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.now = now
        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.papers: dict[str, Paper] | None = None
        self.files: dict[str, bytes] = {}
        self.scripts: list[Script] = []
        self.size = 60_000
        self.step = 16_384
        self.pause = 0.0  # seconds between the parts of a PDF
        self.verbose = False
        self.accepted = 0
        self.open_connections: list[socket.socket] = []
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.open_connections):
            connection.close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, path: str, *faults: Fault, forever: bool = False) -> None:
        self.scripts.append(Script(path, list(faults), forever))

    def next_fault(self, request: Request) -> Fault | None:
        with self.lock:
            for script in self.scripts:
                if request.path.endswith(script.path) and (fault := script.next()) is not None:
                    return fault
        return None

    def paper(self, arxiv_id: str) -> Paper | None:
        return Paper() if self.papers is None else self.papers.get(arxiv_id)

    def pdf(self, name: str) -> bytes:
        return pdf_bytes(name, self.size)

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def counts(self) -> Counter[str]:
        """The number of requests to the API, for PDFs, and for anything else."""
        kinds = [
            "api" if p.endswith("/query") else "pdf" if p.startswith("/pdf/") else "other"
            for p in self.paths()
        ]
        return Counter(kinds)

    def gaps(self) -> list[float]:
        """Seconds between consecutive requests."""
        times = [request.at for request in self.requests]
        return [later - earlier for earlier, later in pairwise(times)]

    def other_connections(self, mine: socket.socket) -> int:
        """The number of connections besides `mine` that the client has not closed."""
        with self.lock:
            return sum(is_open(one) for one in self.open_connections if one is not mine)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self.lock:
            self.open_connections = [one for one in self.open_connections if one.fileno() != -1]
            self.open_connections.append(connection)
            self.accepted += 1
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are expected; any other error is a fault of the server."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


# Faults


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """A response with this status and headers such as `Retry_After="30"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, request: handler.answer(code, body, named)


def page(code: int = 200) -> Fault:
    return status(code, PAGE, Content_Type="text/html; charset=utf-8")


def short_feed(keep: int) -> Fault:
    return lambda handler, request: handler.feed(request.ids[:keep], total=len(request.ids))


def cut_feed(handler: Handler, request: Request) -> None:
    handler.feed(request.ids, change=lambda body: body[: len(body) * 2 // 3])


def crowded_feed(handler: Handler, request: Request) -> None:
    """A feed with a hundred entries."""
    handler.feed(f"2101.{number:05}" for number in range(100))


def padded_feed(handler: Handler, request: Request) -> None:
    """The correct response and 2 MB of blanks."""
    handler.feed(request.ids, change=lambda body: body.replace(b"</feed>", b" " * 2_000_000 + b"</feed>"))


def dripping_feed(handler: Handler, request: Request) -> None:
    """One byte at a time, each in a separate chunk, without end."""
    handler.begin(200, {"Content-Type": "application/atom+xml", "Transfer-Encoding": "chunked"})
    handler.wfile.write(b"".join(b"1\r\n%c\r\n" % byte for byte in FEED.encode()))
    end = time.monotonic() + 20
    while time.monotonic() < end:
        handler.wfile.write(b"1\r\n \r\n" * 100)
        time.sleep(0.001)


def doubled_feed(handler: Handler, request: Request) -> None:
    handler.feed([*request.ids[:-1], *request.ids[:-1]], total=3 * len(request.ids))


def fresh(handler: Handler, request: Request) -> None:
    """The correct response, for scripts that need one between two faults."""
    handler.serve(request)


def _true_pdf(handler: Handler, request: Request) -> bytes:
    return handler.server.pdf(request.path.rsplit("/pdf/")[-1])


def truncated(handler: Handler, request: Request) -> None:
    """Send fewer bytes than announced."""
    data = _true_pdf(handler, request)
    handler.begin(200, {"Content-Length": str(len(data))})
    handler.wfile.write(data[: len(data) // 2])
    handler.drop()


def incomplete(handler: Handler, request: Request) -> None:
    """Omit the end without announcing a length."""
    data = _true_pdf(handler, request)
    handler.begin(200, {"Connection": "close"})
    handler.wfile.write(data[: len(data) // 2])
    handler.drop()


def broken_chunk(handler: Handler, request: Request) -> None:
    data = _true_pdf(handler, request)
    handler.begin(200, {"Transfer-Encoding": "chunked"})
    handler.wfile.write(b"%x\r\n" % len(data) + data[: len(data) // 2])
    handler.drop()


def drop_at_once(handler: Handler, request: Request) -> None:
    handler.drop()


def reset_at_once(handler: Handler, request: Request) -> None:
    handler.reset()


def reset_midway(handler: Handler, request: Request) -> None:
    data = _true_pdf(handler, request)
    handler.begin(200, {"Content-Length": str(len(data))})
    handler.wfile.write(data[:5000])
    handler.reset()


def announce(length: int) -> Fault:
    """Announce a PDF of this length, and send its beginning."""

    def fault(handler: Handler, request: Request) -> None:
        handler.begin(200, {"Content-Length": str(length)})
        handler.wfile.write(_true_pdf(handler, request)[:2000])
        handler.drop()

    return fault


def redirect(target: str) -> Fault:
    return status(302, Location=target)


def hang(seconds: float = 20.0) -> Fault:
    """Send nothing until the client hangs up."""

    def fault(handler: Handler, request: Request) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and is_open(handler.connection):
            time.sleep(0.01)
        handler.drop()

    return fault


def drip(seconds: float = 20.0) -> Fault:
    """Send a byte now and then for ever, so that no read times out."""

    def fault(handler: Handler, request: Request) -> None:
        data = _true_pdf(handler, request)
        handler.begin(200, {"Content-Length": str(len(data))})
        end = time.monotonic() + seconds
        for byte in data:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.01)
            if time.monotonic() > end:
                return

    return fault


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--speed", type=int, default=0, help="bytes a second of a PDF; 0: as fast as it goes")
    options = parser.parse_args()
    with Server(port=options.port) as server:
        server.verbose = True
        server.size = 400_000
        if options.speed:
            server.step, server.pause = max(1, options.speed // 10), 0.1
        print(f"export READTRACK_ARXIV_API={server.base}/api/query")
        print(f"export READTRACK_ARXIV_PDF={server.base}/pdf", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
