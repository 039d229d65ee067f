"""SLURM: runs a run's shepherd as a separate job, through submitit."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from readtrack import interpreter

_ASKED_EVERY = 5.0  # seconds between requests, because a controller serves many users
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESIZING")
_ALIVE = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING")


class SlurmError(Exception):
    """SLURM reported an error, or is not available."""


class State(NamedTuple):
    """The state of a job, as the SLURM controller reports it.

    waiting  it has not begun, or will begin again
    unknown  the controller does not respond
    """

    waiting: bool
    alive: bool
    unknown: bool
    text: str


def submit(
    supervise: Callable[[Path], None], folder: Path, minutes: int, parameters: Mapping[str, str]
) -> str:
    """Queue a job that calls `supervise(folder)` and return its id. Raises SlurmError from sbatch."""
    try:
        import submitit
    except ModuleNotFoundError:
        raise SlurmError(
            f"submitit is not installed there: {interpreter.install_command('slurm', sys.executable)}"
        ) from None
    # -P: do not import from the folder that the job starts in.
    python = f"{shlex.quote(sys.executable)} -P"
    executor = submitit.AutoExecutor(folder=folder / "submitit", cluster="slurm", slurm_python=python)
    try:
        executor.update_parameters(
            timeout_min=minutes,
            stderr_to_stdout=True,
            slurm_job_name=f"readtrack-{folder.name}",
            slurm_use_srun=False,  # one process fewer that can fail
            **{f"slurm_{name}": value for name, value in parameters.items()},
        )
        return str(executor.submit(supervise, folder).job_id)
    except (
        submitit.core.utils.FailedJobError,
        subprocess.CalledProcessError,
        TypeError,
        NameError,
        ValueError,
    ) as error:
        last = str(error).strip().rpartition("\n")[2]
        raise SlurmError(f"the job was rejected: {last}") from error


_states: dict[str, tuple[float, State]] = {}


def state(number: str, *, age: float = _ASKED_EVERY) -> State:
    """The controller's report, at most `age` seconds old."""
    asked, known = _states.get(number, (-math.inf, State(True, True, True, "")))
    if time.monotonic() - asked >= age:
        known = _ask(number)
        _states[number] = (time.monotonic(), known)
    return known


def _ask(number: str) -> State:
    fields = _show(number)
    if fields is None:
        return State(False, False, True, "the cluster does not respond")
    word = fields.get("JobState", "").partition("+")[0].split(" ")[0]
    if not word:
        return State(False, False, False, "SLURM no longer knows the job")
    reason = fields.get("Reason", "None")
    node = fields.get("NodeList", "")
    text = f"SLURM job {number}: {word.lower()}"
    if word in _WAITING and reason not in ("None", ""):
        text += f" ({reason})"
    elif word in _ALIVE and node not in ("", "(null)"):
        text += f" on {node}"
    return State(word in _WAITING, word in _ALIVE, False, text)


def _show(number: str) -> dict[str, str] | None:
    """The fields of a job: empty if SLURM has forgotten it, None if SLURM does not respond."""
    try:
        done = subprocess.run(
            ["scontrol", "show", "job", number, "-o"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    # Values may contain spaces, but those needed here do not.
    pairs = (word.partition("=") for word in done.stdout.split())
    return {name: value for name, equals, value in pairs if equals}


def cancel(number: str) -> None:
    """Cancel a job. Raises SlurmError if there is no scancel."""
    try:
        subprocess.run(["scancel", number], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"scancel: {error}") from error
