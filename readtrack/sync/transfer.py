"""One HTTP request in its own thread.

A thread that waits for a name, a handshake or a silent server cannot be woken by an event, and a read with a
timeout starts afresh with every byte that drips in. So the waiting is done here, and the caller keeps the
deadlines, and can leave at any moment: the socket is shut down, and the thread ends by itself.
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

TIMEOUTS = (10.0, 60.0)  # seconds to connect, and of silence; the caller's own deadlines come first
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The beginning of an answer."""

    url: str
    status: int
    headers: Any  # a case-insensitive mapping

    @property
    def length(self) -> int | None:
        """Bytes announced, where they mean something."""
        text = self.headers.get("Content-Length", "")
        if self.headers.get("Content-Encoding", "identity") != "identity":
            return None
        return int(text) if text.isascii() and text.isdigit() else None


class TransferThread(threading.Thread):
    """`messages` brings a ResponseHead, then bytes, then None for the end; or an exception at any point."""

    def __init__(
        self, session: requests.Session, url: str, headers: dict[str, str], *, public_only: bool
    ) -> None:
        super().__init__(daemon=True, name="readtrack-sync-request")
        self._session = session
        self._url = url
        self._headers = headers
        self._public_only = public_only
        self.is_private = False  # whether the host has a private address, once there is a connection
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
                # Not iter_content, which holds bytes back until a chunk is full.
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
        """Break the connection off unless the answer is complete; wait a moment for the thread to end."""
        self._given_up.set()
        if not self._complete:
            self._shut_down()
        self.join(0.2)

    def uses(self, connection: HTTPConnection) -> None:
        """Called by the connection in this thread, before and after it connects."""
        self._connection = connection
        if self._given_up.is_set():
            self._shut_down()
        # What lies behind a proxy is the proxy's to know.
        if connection.sock is not None and connection.proxy is None:
            self.is_private = is_private(connection.sock.getpeername())
            if self.is_private and self._public_only:
                raise Fault("link", f"a public host points to {connection.host}, a private one")

    def _shut_down(self) -> None:
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            # Not SSLSocket.shutdown, which takes the TLS state away under the thread that reads.
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
    """Nobody waits for this answer any more."""


def is_private(address: tuple[Any, ...]) -> bool:
    """Whether a socket's address is of this machine or a private network."""
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
    """Connections that tell their TransferThread what to shut down; one of them at a time."""

    def __init__(self) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return _use_pools(super().proxy_manager_for(proxy, **kwargs))


def _use_pools(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    # A SOCKS proxy brings its own pools; a request over one is broken off by its timeouts alone.
    if all(
        pool in (HTTPConnectionPool, HTTPSConnectionPool) for pool in manager.pool_classes_by_scheme.values()
    ):
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return manager


def open_session(user_agent: str) -> requests.Session:
    """Proxies and CA bundles come from the usual environment variables."""
    session = requests.Session()
    session.headers["User-Agent"] = user_agent
    session.auth = lambda request: request  # or requests sends what ~/.netrc has for the host
    for scheme in ("https://", "http://"):
        session.mount(scheme, _Adapter())
    return session
