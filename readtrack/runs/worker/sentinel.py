"""The process that ends a run when its starter is gone."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

from readtrack.runs.job import DETACHED
from readtrack.runs.processes import family, kill_each, kill_leftover_processes
from readtrack.runs.store import write_end_event

_SET_CHILD_SUBREAPER = 36  # for Linux's prctl


def adopt_orphans() -> None:
    """Make this process the parent of orphaned descendants.

    A daemon that forks twice and clears its environment then stays in the worker's family, and ends with it.
    Linux only. Such a daemon outlives the run elsewhere, and also on Linux if the worker itself is killed
    from outside (out of memory) or crashes.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_sentinel(folder: Path, commands: int) -> int:
    """Fork a process that ends the run when its starter is gone.

    A thread could not do it: code that holds the interpreter lock (a regular expression, say) stops every
    thread of the worker. Permission to continue is a file for the same reason, because a command through the
    pipe would wait for such a thread.
    """
    worker = os.getpid()
    sentinel = os.fork()
    if sentinel:
        return sentinel
    try:
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        hang_up = select.poll()
        hang_up.register(commands, 0)  # wakes only on hang-up, and reads none of the worker's commands
        hang_up.poll()
        if not (folder / DETACHED).exists():
            if os.getppid() == worker:
                import psutil

                left = family(psutil.Process(worker))  # while the worker is still there to list them
                os.kill(worker, signal.SIGKILL)
                kill_each(left)
            try:
                write_end_event(folder, "interrupted", "readtrack, which had started it, ended")
            finally:
                kill_leftover_processes(folder.name)
                os.killpg(0, signal.SIGKILL)
    finally:
        os._exit(0)
