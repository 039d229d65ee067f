"""A remote run for the app and the command line: like `launcher.RunHandle`, but with a thread that fetches
its events.

One `_Follower` per place holds the connection, and fetches the events of all of its runs.
"""

from __future__ import annotations

import fcntl
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from readtrack.errors import ReadtrackError
from readtrack.home import Home, replacing
from readtrack.places import answers
from readtrack.places.code import Code, names
from readtrack.places.errors import Refused, Unreachable
from readtrack.places.link import Link, connect
from readtrack.places.noted import Noted, place_of
from readtrack.places.place import Place
from readtrack.plugins.find import find
from readtrack.runs import settings
from readtrack.runs.events import Outcome
from readtrack.runs.job import ELSEWHERE, Job
from readtrack.runs.launcher import STOP_LEVELS, StopLevel
from readtrack.runs.store import load, read_result, write_end_event, write_result
from readtrack.text import counted, format_bytes, one_line

_WAIT = 0.5  # seconds that an agent waits for new content, and the longest delay of a cancellation
_PAUSE = 0.1  # seconds between two requests if there is nothing new
_LONGEST_PAUSE = 60.0  # seconds between two attempts to connect
_TRIES = 3  # attempts to connect before giving up a run that never began
_SLACK = 90  # seconds before a time limit at which a run's shepherd stops it

_RUN_LIMIT = 256 << 20  # size limit of a run's events, and of its files
_BLOCK = 4096  # minimum size counted per file, to limit their number

Connect = Callable[[Place], Link]


def start(job: Job, home: Home, place: Place, code: Code, *, connect: Connect = connect) -> FarProcess:
    """Record the job and its place, and send it there in the background.

    `sent.txt` in the run's folder lists the files that are sent. Raises ReadtrackError if the paper does not
    have a setting, or the folder cannot be made. Errors at the place end the run.
    """
    if job.only != "benchmark":
        settings.check(job.settings, job.paper, find(home))
    folder = home.ensure(home.runs) / job.run_id
    if folder.parent != home.runs:
        raise ReadtrackError(f"{job.run_id!r} is not a name for a run.")
    try:
        folder.mkdir()
        job.write(folder)
        noted = Noted(place.name, place.machine)
        noted.write(folder)
        (folder / "sent.txt").write_text("".join(f"{name}\n" for name in names(code)), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ReadtrackError(f"Could not start the run: {error.strerror}: {error.filename}") from error
    return FarProcess(folder, job, place, noted, connect, code)


def attach(folder: Path, *, connect: Connect = connect) -> FarProcess | None:
    """A handle for a remote run; None if it has ended, or its job cannot be read.

    Only the process that starts a run sends its code, because a folder may come from anywhere. Raises
    ReadtrackError if the run's place is not in the reader's places.yaml, or means another machine by now.
    """
    if read_result(folder) is not None:
        return None
    place, noted = place_of(folder, Home(folder.parents[1]))
    try:
        return FarProcess(folder, Job.read(folder), place, noted, connect)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def unfinished(home: Home) -> list[Path]:
    """The folders of remote runs whose end has not been fetched."""
    found = sorted(home.runs.glob(f"*/{ELSEWHERE}"))
    return [file.parent for file in found if not (file.parent / "result.json").exists()]


class FarProcess:
    """A remote run.

    stop_level  the current stop level, or None
    attempt     counts from 1; when it grows, the run has started again, with a new `events.jsonl`
    contact     "" if all is well, else a message about the place: its queue, or that it is out of reach
    """

    def __init__(
        self,
        folder: Path,
        job: Job,
        place: Place,
        noted: Noted,
        connect: Connect,
        code: Code | None = None,
    ) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.stop_level: StopLevel | None = None
        self.attempt = 1
        self.contact = ""
        self.job = job
        self.place = place
        self.asked = 0  # number of cancel requests by the reader
        self.told = 0  # number of cancel requests sent to the place
        self.heard = False  # whether the place has reported on this run
        self.outcome: Outcome | None = None
        self.code = code  # code still to be sent
        self.seen = noted.attempt  # the attempt in events.jsonl
        self._lock: IO[str] | None = (folder / "follow.lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Another process fetches the run; this one only shows it.
            self._lock.close()
            self._lock = None
        else:
            _follower(place, connect).add(self)

    def poll(self) -> Outcome | None:
        """The outcome, once the run's end and its files have been fetched."""
        if self.outcome is None and self._lock is None and (result := read_result(self.folder)) is not None:
            self.outcome = result.outcome
        return self.outcome

    def cancel(self) -> StopLevel:
        """Ask the run to stop. At the last level, an unreachable run is abandoned."""
        self.asked += 1
        self.stop_level = STOP_LEVELS[min(self.asked, len(STOP_LEVELS)) - 1]
        if self.stop_level == "killed" and self.contact and self.outcome is None:
            self.let_go()
            self.outcome = "interrupted"
        return self.stop_level

    def detach(self) -> None:
        """Stop following the run, which continues without this process."""
        self.let_go()

    def let_go(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def followed(self) -> bool:
        return self._lock is not None and self.outcome is None

    @property
    def submitted(self) -> bool:
        return self.code is None

    # Called by the follower

    def size(self) -> int:
        """The offset in the remote file, of which the local file is a prefix."""
        try:
            return (self.folder / "events.jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    def take(self, attempt: str, at: int, data: bytes) -> None:
        """Append new events. Data that overlap or leave a gap are dropped and requested again.

        Raises Refused if the events exceed the limit of a run.
        """
        if attempt != self.seen:
            self._begin_anew(attempt)
        kept = sum(file.stat().st_size for file in (self.folder / "attempts").glob("*.jsonl"))
        if kept + self.size() + len(data) > _RUN_LIMIT:
            raise Refused(f"sent more than {format_bytes(_RUN_LIMIT)} of events")
        if at == self.size() and data:
            with (self.folder / "events.jsonl").open("ab") as file:
                file.write(data)

    def _begin_anew(self, attempt: str) -> None:
        if self.seen:
            kept = self.folder / "attempts"
            kept.mkdir(exist_ok=True)
            if self.size():
                (self.folder / "events.jsonl").replace(kept / f"{self.seen}.jsonl")
            self.attempt += 1
        self.seen = attempt
        Noted(self.place.name, self.place.machine, attempt).write(self.folder)

    def end(self, why: str) -> None:
        """Record the end of a run without a shepherd, which sends no more events."""
        record = load(self.folder)
        if record.outcome is None and self.asked and not self.seen:
            record = write_end_event(self.folder, "cancelled", "before it began")
        elif record.outcome is None:
            said = f": {why}" if why else ""
            record = write_end_event(
                self.folder, "interrupted", f"it did not finish on {self.place.name}{said}"
            )
        else:
            write_result(self.folder, record)
        self.outcome = record.outcome
        self.let_go()

    def fail(self, reason: str) -> None:
        """Record that the run never began."""
        record = write_end_event(self.folder, "failed", f"{self.place.name}: {reason}")
        self.outcome = record.outcome
        self.let_go()


_followers: dict[tuple[str, Connect], _Follower] = {}
_followers_lock = threading.Lock()


def _follower(place: Place, connect: Connect) -> _Follower:
    key = repr(place), connect
    with _followers_lock:
        found = _followers.get(key)
        if found is None or not found.is_alive():
            found = _followers[key] = _Follower(place, connect)
            found.start()
        return found


class _Follower(threading.Thread):
    """The connection to one place. Ends a few seconds after its last run."""

    def __init__(self, place: Place, connect: Connect) -> None:
        super().__init__(name=f"place {place.name}", daemon=True)
        self._place = place
        self._connect = connect
        self._runs: list[FarProcess] = []
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._failures = 0

    def add(self, run: FarProcess) -> None:
        with self._lock:
            self._runs.append(run)

    def run(self) -> None:
        idle = time.monotonic()
        while True:
            with self._lock:
                self._runs = [run for run in self._runs if run.followed]
                runs = list(self._runs)
            if runs:
                idle = time.monotonic()
                self._look(runs)
            elif time.monotonic() - idle > 5.0:
                break
            else:
                time.sleep(_PAUSE)
        if self._link is not None:
            self._link.close()

    def _look(self, runs: list[FarProcess]) -> None:
        try:
            if self._link is None:
                self._link = self._connect(self._place)
            news = self._ask(self._link, runs)
        except Unreachable as error:
            self._lose(runs, str(error))
        except ReadtrackError as error:
            for run in runs:
                if not run.submitted:
                    run.fail(str(error))
            self._lose([run for run in runs if run.submitted], str(error))
        except Exception as error:  # whatever a link's library raises does not affect the runs themselves
            self._lose(runs, f"{type(error).__name__}: {error}")
        else:
            if self._failures:
                self._failures = 0
                for run in runs:
                    run.contact = ""
            if not news:
                time.sleep(_PAUSE)

    def _lose(self, runs: list[FarProcess], why: str) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._failures += 1
        for run in runs:
            run.contact = f"no contact with {self._place.name} ({why}); trying again"
            if not run.submitted and self._failures >= _TRIES:
                run.fail(f"could not be reached: {why}")
        pause = min(2.0 ** (self._failures - 1), _LONGEST_PAUSE) * random.uniform(0.7, 1.0)
        until = time.monotonic() + pause
        while time.monotonic() < until and any(run.followed for run in runs):
            time.sleep(_PAUSE)

    def _ask(self, link: Link, runs: list[FarProcess]) -> bool:
        """Make one round of requests. Return whether there were new events."""
        for run in runs:
            try:
                if run.code is not None:
                    self._submit(link, run, run.code)
            except Refused as error:
                run.fail(str(error))
                continue
            if run.asked > run.told:
                wanted = run.asked
                link.call({"do": "cancel", "run": run.run_id, "times": wanted})
                run.told = wanted
        going = {run.run_id: run for run in runs if run.submitted and run.outcome is None}
        offsets = {id_: [run.seen, run.size(), run.contact] for id_, run in going.items()}
        said, data = link.call({"do": "read", "runs": offsets, "wait": _WAIT})
        at = 0
        for run_id, frame in answers.frames(said, going, len(data)):
            run, mine = going[run_id], data[at : at + frame.n]
            at += frame.n
            try:
                if frame.attempt and frame.attempt >= run.seen:
                    run.take(frame.attempt, frame.at, mine)
            except Refused as error:
                run.fail(str(error))
                link.call({"do": "cancel", "run": run.run_id, "times": len(STOP_LEVELS)})
                continue
            run.contact = frame.why
            if frame.alive is False and not mine:
                self._finish(link, run, frame.why)
        for run in going.values():
            run.heard = True
        return bool(data)

    def _submit(self, link: Link, run: FarProcess, code: Code) -> None:
        digest, archive = code
        if not link.call({"do": "has", "hash": digest})[0]["has"]:
            link.call({"do": "put", "hash": digest}, archive)
        request: dict[str, Any] = {
            "do": "start",
            "job": asdict(run.job),
            "hash": digest,
            "kind": self._place.kind,
        }
        if self._place.kind == "slurm":
            limit = max(60.0, self._place.minutes * 60.0 - _SLACK)
            request["job"]["timeout"] = min(run.job.timeout or limit, limit)
            request.update(minutes=self._place.minutes, parameters=self._place.parameters)
        link.call(request)
        run.code = None

    def _finish(self, link: Link, run: FarProcess, why: str) -> None:
        """Fetch the run's files, then record its end: `result.json` comes last."""
        left = fetch(link, run) if run.seen else []
        run.end(why)
        if not left:
            link.call({"do": "remove", "run": run.run_id})


def fetch(link: Link, run: FarProcess) -> list[str]:
    """Fetch the log and the artifacts of the run's last attempt, except those already complete.

    Return the names of files beyond the run's limit. They stay on the other machine, and the run's log says
    so.
    """
    said, _ = link.call({"do": "files", "run": run.run_id, "attempt": run.seen})
    left, room = [], _RUN_LIMIT
    for name, size in answers.files(said):
        target = run.folder / name
        if not target.resolve().is_relative_to(run.folder.resolve()):
            continue  # a link leads out of the folder
        room -= max(size, _BLOCK)
        if room < 0:
            left.append(name)
        elif not (target.is_file() and target.stat().st_size == size):
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as part, part.open("wb") as file:
                _copy(link, run, name, size, file)
    if left:
        with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(
                f"readtrack: left {counted(len(left), 'file')} on {run.place.name}, because at most "
                f"{format_bytes(_RUN_LIMIT)} are fetched: {one_line(', '.join(left))[:500]}\n"
            )
    return left


def _copy(link: Link, run: FarProcess, name: str, size: int, file: IO[bytes]) -> None:
    while (at := file.tell()) < size:
        request = {"do": "chunk", "run": run.run_id, "attempt": run.seen, "name": name, "at": at}
        _, data = link.call(request)
        if not data:
            break  # it was truncated there in the meantime
        file.write(data[: size - at])
