"""One HTTP request in its own thread.

A thread that waits for name resolution, a handshake or a silent server cannot be interrupted by an event, and
a read timeout restarts with every byte. So this thread does the waiting, while the caller enforces deadlines
and can leave at any time: the socket is shut down, and the thread ends by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from readtrack.sync.faults import Fault

TIMEOUTS = (10.0, 60.0)  # seconds for connecting, and of silence; the caller's own deadlines are shorter
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and headers of a response."""

    url: str
    status: int
    headers: Any  # a case-insensitive mapping

    @property
    def length(self) -> int | None:
        """Announced bytes, if the header is meaningful."""
        text = self.headers.get("Content-Length", "")
        if self.headers.get("Content-Encoding", "identity") != "identity":
            return None
        return int(text) if text.isascii() and text.isdigit() else None


class TransferThread(threading.Thread):
    """`messages` yields a ResponseHead, then bytes, then None at the end; or an exception at any point."""

    def __init__(
        self, session: requests.Session, url: str, headers: dict[str, str], *, public_only: bool
    ) -> None:
        super().__init__(daemon=True, name="readtrack-sync-request")
        self._session = session
        self._url = url
        self._headers = headers
        self._public_only = public_only
        self.is_private = False  # whether the host has a private address, once connected
        self._given_up = threading.Event()
        self._complete = False
        self._connection: HTTPConnection | None = None
        self.messages: queue.Queue[ResponseHead | bytes | Exception | None] = queue.Queue(maxsize=16)

    def run(self) -> None:
        try:
            with self._session.get(
                self._url, headers=self._headers, stream=True, allow_redirects=False, timeout=TIMEOUTS
            ) as response:
                self._put(ResponseHead(self._url, response.status_code, response.headers))
                # Not iter_content, which waits until a chunk is full.
                while data := response.raw.read1(_CHUNK, decode_content=True):
                    self._put(data)
            self._complete = True
            self._put(None)
        except _GivenUpError:
            return
        except Exception as error:
            with contextlib.suppress(_GivenUpError):
                self._put(error)

    def give_up(self) -> None:
        """Break the connection unless the response is complete, and wait a moment for the thread to end."""
        self._given_up.set()
        if not self._complete:
            self._shut_down()
        self.join(0.2)

    def uses(self, connection: HTTPConnection) -> None:
        """Called by the connection in this thread, before and after connecting."""
        self._connection = connection
        if self._given_up.is_set():
            self._shut_down()
        # Behind a proxy the address is unknown.
        if connection.sock is not None and connection.proxy is None:
            self.is_private = is_private(connection.sock.getpeername())
            if self.is_private and self._public_only:
                raise Fault("link", f"a public host points to {connection.host}, a private one")

    def _shut_down(self) -> None:
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            # Not SSLSocket.shutdown, which removes the TLS state under the reading thread.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _put(self, message: ResponseHead | bytes | Exception | None) -> None:
        while not self._given_up.is_set():
            try:
                return self.messages.put(message, timeout=0.1)
            except queue.Full:
                continue
        raise _GivenUpError


class _GivenUpError(Exception):
    """Nobody waits for this response any more."""


def is_private(address: tuple[Any, ...]) -> bool:
    """Whether a socket's address belongs to this machine or a private network."""
    return not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global


def _report(connection: HTTPConnection) -> None:
    thread = threading.current_thread()
    if isinstance(thread, TransferThread):
        thread.uses(connection)


class _Plain(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _report(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _report(self)  # it may be open already
        super().request(*args, **kwargs)


class _Secure(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _report(self)

    def request(self, *args: Any, **kwargs: Any) -> None:
        _report(self)
        super().request(*args, **kwargs)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    """Connections that register with their TransferThread for shutdown, one at a time."""

    def __init__(self) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return _use_pools(super().proxy_manager_for(proxy, **kwargs))


def _use_pools(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    # A SOCKS proxy has its own pools; its requests end only by timeouts.
    if all(
        pool in (HTTPConnectionPool, HTTPSConnectionPool) for pool in manager.pool_classes_by_scheme.values()
    ):
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return manager


def open_session(user_agent: str) -> requests.Session:
    """A session that takes proxies and CA bundles from the usual environment variables."""
    session = requests.Session()
    session.headers["User-Agent"] = user_agent
    session.auth = lambda request: request  # otherwise requests sends credentials from ~/.netrc
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter())
    return session
