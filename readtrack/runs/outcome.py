"""The outcome of a run without an `end` event, determined from exit status, log and kernel counters."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from readtrack.runs import log
from readtrack.runs.events import Outcome
from readtrack.text import format_bytes, format_duration, one_line, signal_name

if TYPE_CHECKING:
    from readtrack.runs.record import Record

StopReason = Literal[
    "cancelled", "timed_out", "interrupted"
]  # stopped by the reader, a timeout or the machine's owner

_FAULTS = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP")


def stopped(record: Record, reason: StopReason, how: str = "", place: str = "") -> str:
    """The detail for a stopped run. `how`: the stop level that worked. `place`: where it hung."""
    timeout = record.job.timeout if record.job else None
    text = "stopped"
    if reason == "timed_out" and timeout is not None:
        text += f" after its {format_duration(timeout)}"
    if reason == "interrupted":
        text += ", its machine was reclaimed,"
    if record.phase:
        text += f" in phase {record.phase}"
    if place:
        text += f", at {place}"
    return f"{text}; it had to be {how}" if how else text


def classify_exit(
    folder: Path,
    record: Record,
    code: int | None,
    *,
    kills: tuple[int | None, int | None] = (None, None),
    plugin_folders: Iterable[str] = (),
) -> tuple[Outcome, str]:
    """Outcome and detail of a run.

    code   the worker's exit status as in `subprocess`; None if it was not our child
    kills  `oom_kills()` before and after the run
    """
    phase = f"in phase {record.phase}" if record.phase else "before its first phase"
    place = log.last_place(folder, plugin_folders)
    at = f", at {place}" if place else ""
    fault = log.fatal_error(folder) if code is None else signal_name(-code) if code < 0 else ""
    if fault and (code is None or fault in _FAULTS):
        return "crashed", f"{fault} {phase}{at}"
    if fault == "SIGXCPU":
        return "timed_out", f"it exceeded its limit of processor time {phase}{at}"
    if _deadline_passed(folder, record):
        return "timed_out", stopped(record, "timed_out", place=place)
    if code == -signal.SIGKILL or (code is None and _rose(kills)):
        return _killed(record, phase, kills)
    if code is None:
        return "interrupted", f"its process ended {phase}"
    if code < 0:
        return "interrupted", f"ended from outside by {signal_name(-code)} {phase}"
    last = one_line(log.tail(folder).strip().rpartition("\n")[2])[:300]
    said = f"; its log ends: {last}" if last and record.hello is None else ""
    return "crashed", f"ended without a result (exit code {code}) {phase}{said}"


def _deadline_passed(folder: Path, record: Record) -> bool:
    timeout = record.job.timeout if record.job else None
    return timeout is not None and (record.duration >= timeout or log.deadline_struck(folder))


def _rose(kills: tuple[int | None, int | None]) -> bool:
    before, after = kills
    return before is not None and after is not None and after > before


def _killed(record: Record, phase: str, kills: tuple[int | None, int | None]) -> tuple[Outcome, str]:
    held = f" at {format_bytes(record.memory_peak)}" if record.memory_peak else ""
    if _rose(kills):
        return "out_of_memory", f"the system killed it because host memory ran out {phase}{held}"
    if None in kills:
        return "out_of_memory", f"likely: it was killed (SIGKILL) {phase}{held}, but not by readtrack"
    return "crashed", (
        f"SIGKILL {phase}{held}, sent neither by readtrack nor by the kernel's out-of-memory killer: "
        "perhaps by a system daemon or a kill command"
    )


def oom_kills() -> int | None:
    """Number of out-of-memory kills in this process's control group, or None if unknown."""
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = Path("/sys/fs/cgroup"), "memory.events"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.oom_control"
        else:
            continue
        # In a container the path may be the host's, with the container's own group mounted at the root.
        for folder in (root / path.lstrip("/"), root):
            count = _field(folder / name, "oom_kill")
            if count is not None:
                return count
    return None


def _field(path: Path, name: str) -> int | None:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        return None
    return None
