"""The remote side of a connection: answers requests about its runs, one at a time.

    python -m readtrack.places.agent HOME MARK

A request is a line of JSON with the length of the payload, `{"do": "read", "n": 0, ...}`, followed by the
payload. An answer has the same form. Before the first answer the agent prints a line with MARK, chosen by the
caller, which marks the end of a login shell's output. The agent has no state: it may be killed at any time,
and another one continues.

| do | what it does |
| --- | --- |
| hello | report readtrack and Python versions, the host, and free disk space |
| has, put | report whether code with a hash is present; store code under its hash |
| start | start a run unless it has been started, so repeating the request is safe |
| read | new content of runs' event files; waits up to `wait` seconds for it |
| cancel | leave a message for a run's shepherd |
| files, chunk | list a run's files, and read a part of one file |
| remove | delete a run that has ended |
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import io
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import IO, Any

import readtrack
from readtrack.home import write_text
from readtrack.places import folders, slurm

Request = dict[str, Any]
Answer = tuple[dict[str, Any], bytes]

CHUNK = 1 << 20  # bytes of a file in one answer
LEASE = 15.0  # seconds without a sign of life after which a shepherd counts as dead
_FULL = 64 << 10  # with fewer free bytes the disk counts as full
_LAST = 4  # number of cancel requests after which the engine kills the run

_TICK = 0.05  # seconds
# Files that the caller has already, or does not use.
_NOT_FETCHED = {"events.jsonl", "job.json", "result.json", "scratch", "detached"}


def answer(root: Path, request: Request, payload: bytes) -> Answer:
    """Answer a request. Raises ValueError for a malformed request, OSError from the disk."""
    return _ANSWERS[request["do"]](root, request, payload)


def hello(root: Path, request: Request, payload: bytes) -> Answer:
    root.mkdir(parents=True, exist_ok=True)
    return {
        "readtrack": readtrack.__version__,
        "python": platform.python_version(),
        "torch": importlib.util.find_spec("torch") is not None,
        "submitit": importlib.util.find_spec("submitit") is not None,
        "host": socket.gethostname(),
        "clock": time.time(),
        "free": shutil.disk_usage(root).free,
        "root": str(root),
    }, b""


def has(root: Path, request: Request, payload: bytes) -> Answer:
    return {"has": folders.code(root, request["hash"]).is_dir()}, b""


def put(root: Path, request: Request, payload: bytes) -> Answer:
    """Unpack code under its hash. Raises ValueError if the hash does not match."""
    if hashlib.sha256(payload).hexdigest() != request["hash"]:
        raise ValueError("the code was damaged in transit")
    place = folders.code(root, request["hash"])
    if not place.is_dir():
        part = place.with_name(f".{place.name}.{os.getpid()}")
        with tarfile.open(fileobj=io.BytesIO(payload)) as tar:
            tar.extractall(part, filter="data")
        try:
            part.rename(place)
        except OSError:  # another process was quicker
            shutil.rmtree(part)
    return {}, b""


def prepare(root: Path, request: Request) -> Path:
    """The run's folder, with the files that its shepherd needs."""
    folder = folders.run(root, request["job"]["run_id"])
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "code").exists():
        write_text(folder / "job.json", json.dumps(request["job"]))
        write_text(folder / "code", request["hash"])
    return folder


def start(root: Path, request: Request, payload: bytes) -> Answer:
    """Start a run. The process that gets the lock starts the shepherd and passes the lock on to it.

    The lock is held for as long as the shepherd lives.
    """
    folder = prepare(root, request)
    with (folder / "lock").open("a") as lock:
        if not _locked(lock) or folders.attempts(folder) or (folder / "engine.json").exists():
            return {"started": False}, b""
        if request["kind"] == "slurm":
            from readtrack.places import shepherd

            number = slurm.submit(shepherd.main, folder, request["minutes"], request["parameters"])
            write_text(folder / "engine.json", json.dumps({"slurm": number}))
        else:
            with (folder / "shepherd.txt").open("ab") as output:
                subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "readtrack.places.shepherd",
                        str(folder),
                        str(lock.fileno()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=folder,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )
    return {"started": True}, b""


def read(root: Path, request: Request, payload: bytes) -> Answer:
    """A frame for each run with new data: its newest attempt, the offset, and whether a shepherd is alive."""
    deadline = time.monotonic() + min(float(request.get("wait", 0)), 10.0)
    while True:
        frames, data = [], []
        for run_id, (attempt, at, why) in request["runs"].items():
            frame, more = _frame(folders.run(root, run_id), attempt, at)
            if more or frame["alive"] is not True or (frame["attempt"], frame["why"]) != (attempt, why):
                frames.append({"run": run_id, **frame, "n": len(more)})
                data.append(more)
            if sum(map(len, data)) > CHUNK:
                break
        if frames or time.monotonic() > deadline:
            return {"frames": frames}, b"".join(data)
        time.sleep(_TICK)


def _frame(folder: Path, attempt: str, at: int) -> tuple[dict[str, Any], bytes]:
    # This comes before reading the file. In the other order, events written just before the end would be
    # lost.
    alive, why = _alive(folder)
    if alive is False and folder.is_dir() and shutil.disk_usage(folder).free < _FULL:
        why = why or "the disk there is full"
    newest = next(reversed(folders.attempts(folder)), "")
    if newest != attempt:
        attempt, at = newest, 0
    more = b""
    if newest:
        try:
            with (folders.attempt(folder, newest) / "events.jsonl").open("rb") as file:
                file.seek(at)
                more = file.read(CHUNK)
        except FileNotFoundError:
            more = b""
    return {"attempt": newest, "at": at, "alive": alive, "why": why}, more


def cancel(root: Path, request: Request, payload: bytes) -> Answer:
    """Cancel a run. `times`: number of requests so far.

    A run that waits in a queue, or whose node does not respond, is removed from the queue.
    """
    folder = folders.run(root, request["run"])
    write_text(folder / "cancel", str(int(request["times"])))
    number = _slurm_job(folder)
    if not number:
        return {}, b""
    # Ask for the current state, because dequeuing a job that has begun would kill its worker.
    forced = not folders.attempts(folder) or request["times"] >= _LAST
    if forced or slurm.state(number, age=0).waiting:
        slurm.cancel(number)
    return {}, b""


def files(root: Path, request: Request, payload: bytes) -> Answer:
    """Names and sizes of the attempt's files."""
    folder = folders.attempt(folders.run(root, request["run"]), request["attempt"])
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and name.parts[0] not in _NOT_FETCHED:
            found[name.as_posix()] = path.stat().st_size
    return {"files": found}, b""


def chunk(root: Path, request: Request, payload: bytes) -> Answer:
    folder = folders.attempt(folders.run(root, request["run"]), request["attempt"])
    path = (folder / request["name"]).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError("the file does not belong to the run")
    with path.open("rb") as file:
        file.seek(request["at"])
        return {}, file.read(CHUNK)


def remove(root: Path, request: Request, payload: bytes) -> Answer:
    """Delete a run. Raises ValueError while it is alive."""
    folder = folders.run(root, request["run"])
    # Renamed first, because submitit may still write that its job has ended.
    gone = folder.with_name(f".{folder.name}")
    if folder.is_dir():
        if _alive(folder)[0] is True:
            raise ValueError("the run is alive")
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    return {}, b""


_ANSWERS = {each.__name__: each for each in (hello, has, put, start, read, cancel, files, chunk, remove)}


def _locked(lock: IO[Any]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _alive(folder: Path) -> tuple[bool | None, str]:
    """Whether a shepherd is alive (None: unknown), and the scheduler's state."""
    if (folder / "done").exists():
        return False, ""
    if number := _slurm_job(folder):
        state = slurm.state(number)
        if state.waiting:
            return True, state.text
        # Locks of other nodes cannot be examined, so the lease decides, whatever the controller says.
        return (True if _leased(folder) else None if state.unknown else state.alive), state.text
    try:
        with (folder / "lock").open("a") as lock:
            held = not _locked(lock)
    except FileNotFoundError:
        return False, "there is no such run"
    return held, "" if held else _last_words(folder)


def _last_words(folder: Path) -> str:
    """The last line of the shepherd's output, if it failed."""
    try:
        return (folder / "shepherd.txt").read_text(errors="replace").strip().rpartition("\n")[2][:300]
    except OSError:
        return ""


_renewed: dict[Path, tuple[int, float]] = {}  # the lease's remote time, and when it was first seen here


def _leased(folder: Path) -> bool:
    """Whether the lease was renewed recently. The first check compares clocks; later ones need a change."""
    try:
        stamp = (folder / "lease").stat().st_mtime_ns
    except OSError:
        return False
    now = time.monotonic()
    if folder not in _renewed and abs(time.time() - stamp / 1e9) > LEASE:
        _renewed[folder] = stamp, now - LEASE
    elif folder not in _renewed or _renewed[folder][0] != stamp:
        _renewed[folder] = stamp, now
    return now - _renewed[folder][1] < LEASE


def _slurm_job(folder: Path) -> str:
    try:
        return str(json.loads((folder / "engine.json").read_bytes()).get("slurm", ""))
    except (OSError, ValueError):
        return ""


def serve(root: Path, mark: str, source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer requests until the end of the source. Errors are sent as answers."""
    sink.write(f"\n{mark}\n".encode())
    sink.flush()
    while line := source.readline():
        request = json.loads(line)
        payload = source.read(request["n"])
        try:
            said, data = answer(root, request, payload)
        except (OSError, ValueError, KeyError, slurm.SlurmError) as error:
            said, data = {"error": f"{type(error).__name__}: {error}"}, b""
        sink.write(json.dumps({**said, "n": len(data)}).encode() + b"\n" + data)
        sink.flush()


if __name__ == "__main__":
    serve(folders.root(sys.argv[1]), sys.argv[2], sys.stdin.buffer, sys.stdout.buffer)
