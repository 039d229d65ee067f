"""Throttling of hosts: pauses between requests, Retry-After, hosts that are blocked for this sync.

arXiv's terms allow one request every three seconds and one connection at a time, for all machines that a
person controls. So the API's host, the PDFs' host and arxiv.org count as one, and the time of the last
request is stored for the next process. Every other host gets one request per second.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from readtrack.sync.clock import Clock
from readtrack.sync.faults import Fault

ARXIV = "arXiv"
ARXIV_PAUSE = 3.0  # seconds
OTHER_PAUSE = 1.0
PATIENCE = 3  # consecutive failures after which a host is blocked
_DAY = 86400.0


class HostThrottle:
    """`path` stores each host's last request and block; only the holder of the sync lock may use it."""

    def __init__(
        self, path: Path, clock: Clock, cancel: threading.Event, arxiv_hosts: frozenset[str]
    ) -> None:
        self._path = path
        self._clock = clock
        self._cancel = cancel
        self._arxiv_hosts = arxiv_hosts
        self._kept = _read(path)
        self._next: dict[str, float] = {}  # in the time of the clock's now()
        self._closed: dict[str, str] = {}
        self._failures: Counter[str] = Counter()
        self.not_before: float | None = None  # wall time until which arXiv is blocked
        self._take_over()

    def host(self, url: str) -> str:
        """The host's name for messages: "arXiv", or the name in the link."""
        parts = urlsplit(url)
        name = parts.hostname or ""
        if parts.netloc in self._arxiv_hosts or name == "arxiv.org" or name.endswith(".arxiv.org"):
            return ARXIV
        return parts.netloc

    def wait(self, url: str) -> None:
        """Wait until `url` may be requested. Raises Fault "closed" if its host is blocked, SyncCancelled."""
        host = self.host(url)
        if host in self._closed:
            raise Fault("closed", self._closed[host])
        self._clock.sleep(self._next.get(host, 0.0) - self._clock.now(), self._cancel)
        self.asked(url)

    def asked(self, url: str) -> None:
        """A request to `url` is in progress, or has just ended: restart the pause."""
        host = self.host(url)
        self._next[host] = self._clock.now() + _pause(host)
        self._kept.setdefault(host, {})["last"] = self._clock.wall()
        self._write()

    def succeeded(self, url: str) -> None:
        self._failures[self.host(url)] = 0

    def failed(self, url: str, reason: str) -> str:
        """Count a file that failed in all attempts; after several, block the host. Returns the message."""
        host = self.host(url)
        self._failures[host] += 1
        if self._failures[host] < PATIENCE:
            return reason
        self._closed[host] = (
            f"{reason}; after {PATIENCE} such failures in a row, requests to {host} were stopped"
        )
        return self._closed[host]

    def close(self, url: str, reason: str) -> None:
        """Block this host for this sync."""
        self._closed[self.host(url)] = reason

    def postpone(self, url: str, reason: str, seconds: float) -> str:
        """Block this host for some seconds, in all processes, and return the message."""
        host = self.host(url)
        until = self._clock.wall() + min(seconds, _DAY)
        self._kept.setdefault(host, {}).update(not_before=until, why=reason)
        self._write()
        return self._hold(host, reason, until)

    def _hold(self, host: str, reason: str, until: float) -> str:
        if host == ARXIV:
            self.not_before = until
        self._closed[host] = f"{reason}; no more requests until {say_time(until, self._clock.wall())}"
        return self._closed[host]

    def _take_over(self) -> None:
        """Restore the state of the last process, ignoring implausible times."""
        wall, now = self._clock.wall(), self._clock.now()
        for host, entry in list(self._kept.items()):
            since = wall - entry.get("last", 0.0)
            if since < _pause(host):  # also after the clock was set back
                self._next[host] = now + _pause(host) - max(0.0, since)
            if wall < entry.get("not_before", 0.0) <= wall + _DAY:
                self._hold(host, entry["why"], entry["not_before"])
            elif since > _DAY:
                del self._kept[host]

    def _write(self) -> None:
        # Without fsync: after a power cut, starting the machine takes longer than the pause.
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_text(json.dumps(self._kept), encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            raise Fault("disk", f"could not write {self._path}: {error.strerror}") from error


def say_time(wall: float, now: float) -> str:
    """`14:32`, or with the date if it is not today."""
    moment = datetime.fromtimestamp(wall)
    today = moment.date() == datetime.fromtimestamp(now).date()
    return f"{moment:%H:%M}" if today else f"{moment:%Y-%m-%d %H:%M}"


def _pause(host: str) -> float:
    return ARXIV_PAUSE if host == ARXIV else OTHER_PAUSE


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(host): {
                "last": float(entry["last"]),
                **(
                    {"not_before": float(entry["not_before"]), "why": str(entry["why"])}
                    if "why" in entry
                    else {}
                ),
            }
            for host, entry in document.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
