"""Inspect a plugin in a child process: import it, read its claims, run its checks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from readtrack import interpreter
from readtrack.claims import Claim
from readtrack.home import Home
from readtrack.plugins.environment import child_environment
from readtrack.text import signal_name


class Inspection(NamedTuple):
    """The result of a check in a child process: why the plugin cannot be used, or None; and its claims."""

    reason: str | None
    claims: tuple[Claim, ...] = ()


def check(name: str, home: Home, timeout: float = 30) -> str | None:
    """Import the plugin in a child process. Return None if it works, else one line with the reason."""
    return examine(name, home, timeout).reason


def examine(name: str, home: Home, timeout: float = 30) -> Inspection:
    """Import the plugin in a child process, and read its claims."""
    from readtrack.claims import Claim

    found, reason = _ask("readtrack.plugins", name, home, timeout)
    if reason is not None:
        return Inspection(f"it {reason} during import")
    return Inspection(found["reason"], tuple(map(Claim.from_json, found["claims"])))


def check_all(name: str, home: Home, timeout: float = 900) -> list[tuple[str, str]]:
    """Run every check of a plugin in a child process: (requirement, "" or why it is not met)."""
    found, reason = _ask("readtrack.checks", name, home, timeout)
    if reason is not None:
        return [("it can be checked", f"it {reason} during the checks")]
    return [(str(what), str(why)) for what, why in found]


def mutants(name: str, home: Home, timeout: float = 900) -> list[tuple[str, str, str]]:
    """Try the checks on mutants of a plugin's comparisons, in a child process.

    Return for each mutant its description, "killed", "survived" or "does not apply", and the check that
    killed it.
    """
    found, reason = _ask("readtrack.checks.mutants", name, home, timeout)
    if reason is not None:
        return [("the plugin can be run with a mistake in it", "survived", f"it {reason}")]
    return [(str(what), str(fate), str(by)) for what, fate, by in found]


def _ask(program: str, name: str, home: Home, timeout: float) -> tuple[Any, str | None]:
    """The child process's report on a plugin, as JSON; or why there is none."""

    with tempfile.TemporaryDirectory(prefix="readtrack-check-") as folder:
        answer = Path(folder, "answer.json")
        process = subprocess.Popen(
            [interpreter.path(), "-m", program, name, str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=child_environment(home),
            start_new_session=True,
        )
        in_time = _ends(process.pid, timeout)
        # Kill the group before its leader is reaped, because its number may be reused afterwards.
        _kill_group(process.pid)
        code = process.wait()
        if not in_time:
            return None, f"took more than {timeout:g} s"
        if answer.exists():
            return json.loads(answer.read_text(encoding="utf-8")), None
    if code < 0:
        return None, f"crashed ({signal_name(-code)})"
    return None, f"ended the process (exit code {code})"


def _ends(child: int, timeout: float) -> bool:
    """Whether the child process ends within `timeout` seconds, without reaping it."""
    import psutil

    process, end = psutil.Process(child), time.monotonic() + timeout
    while process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # the group is empty
