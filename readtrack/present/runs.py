"""Texts for runs: phases, progress, results, and why a run ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from readtrack.present.actions import key
from readtrack.present.claims import number
from readtrack.present.scales import is_timed
from readtrack.runs.record import Record
from readtrack.text import counted, format_bytes, format_duration, format_number, one_line

_PHASES = ("import", "setup", "train", "evaluate", "benchmark", "teardown")
_MESSAGE = 500  # characters
_ENDED = {
    "failed": "failed",
    "cancelled": "was cancelled",
    "timed_out": "timed out",
    "out_of_memory": "ran out of memory",
    "crashed": "crashed",
    "interrupted": "was interrupted",
}
_COULD_NOT = {
    "import": "import the plugin",
    "setup": "set up the run",
    "train": "finish the training",
    "evaluate": "finish the evaluation",
    "benchmark": "finish the benchmark",
}
_NEXT = {
    "out_of_memory": ("run_options", "run it with a smaller budget or on another device"),
    "timed_out": ("run_options", "run it with a smaller budget"),
    "interrupted": ("run", "run it again"),
    "usage": ("run_options", "change the options"),
}


def outcome(word: str | None) -> str:
    """`timed out`; a run without an outcome is running."""
    return (word or "running").replace("_", " ")


def environment(facts: Mapping[str, Any]) -> str:
    """`cpu (AMD EPYC), float32, 4 threads, torch 2.13.0`."""
    device, name = str(facts.get("device", "?")), str(facts.get("device_name") or "")
    return one_line(
        ", ".join([f"{device} ({name})" if name and name != device else device, *_settings(facts)])
    )


def machine(record: Record) -> str:
    """The machine and its memory; "" until it is known."""
    found = record.environment
    parts = [
        str(found.get("device_name") or found.get("device") or ""),
        *_settings(found),
        f"memory {format_bytes(record.memory_peak)}" if record.memory_peak else "",
        f"on the device {format_bytes(record.device_memory)}" if record.device_memory else "",
        str(found.get("host") or ""),
    ]
    return one_line(" · ".join(filter(None, parts)))


def _settings(facts: Mapping[str, Any]) -> list[str]:
    threads = facts.get("threads")
    parts = [
        str(facts.get("dtype") or ""),
        counted(threads, "thread") if threads else "",
        f"torch {facts['torch']}" if facts.get("torch") else "",
    ]
    return [part for part in parts if part]


class PhaseView(NamedTuple):
    """A phase of a run. seconds: time spent in the phase so far; 0 for a future phase."""

    name: str
    state: Literal["done", "now", "stopped", "to come"]
    seconds: float = 0.0


def phases(record: Record) -> list[PhaseView]:
    """Finished, current and future phases. A phase that occurs twice has the sum of its times."""
    # A stopped run did not stop in the teardown, but in the phase before.
    begun = [phase for phase in record.phases if record.outcome is None or phase[0] != "teardown"]
    ends = [began for _, began in begun[1:]] + [record.elapsed]
    took: dict[str, float] = {}
    for (name, began), ended in zip(begun, ends, strict=False):
        took[name] = took.get(name, 0.0) + max(0.0, ended - began)
    now = begun[-1][0] if begun else ""
    last: Literal["done", "now", "stopped"] = (
        "now" if record.outcome is None else "done" if record.outcome == "completed" else "stopped"
    )
    found = [PhaseView(name, last if name == now else "done", seconds) for name, seconds in took.items()]
    return found + [PhaseView(name, "to come") for name in _to_come(record)]


def _to_come(record: Record) -> list[str]:
    if record.outcome is not None:
        return []
    only = record.job.only if record.job else None
    left_out = {"experiment": ("benchmark",), "benchmark": ("train", "evaluate")}.get(only or "", ())
    seen = max((_PHASES.index(name) for name, _ in record.phases if name in _PHASES), default=-1)
    return [name for name in _PHASES[seen + 1 : -1] if name not in left_out]


def waiting(record: Record) -> str:
    """The activity of a run without progress, or why it ended."""
    if record.outcome is not None:
        return "" if record.outcome == "completed" else record.detail or "no details were recorded"
    if record.state == "not responding":
        return f"not responding for a minute; press {key('cancel')} to stop it"
    words = {"": "starting a fresh Python", "import": "importing torch and the plugin"}
    return words.get(record.phase, "")


def time_left(record: Record) -> str:
    """`about 48 s left` of the whole run, or of the current loop if the total is unknown."""
    if record.outcome is not None:
        return ""
    if record.expected is not None:
        left = record.expected - record.elapsed
        return f"about {format_duration(round(left))} left" if left >= 1 else "longer than expected"
    progress = record.progress
    if progress is None or progress.eta is None:
        return ""
    return f"{format_duration(progress.eta)} left in this loop"


def load(record: Record) -> str:
    """The known load of a live run, such as `12.3 steps/s   CPU 98%   304 MiB`."""
    if record.outcome is not None:
        return ""
    parts = (
        f"{format_number(record.rate)} steps/s" if record.rate else "",
        f"CPU {record.cpu:.0%}" if record.cpu is not None else "",
        format_bytes(record.memory) if record.memory else "",
        f"device {format_bytes(record.device_memory)}" if record.device_memory else "",
    )
    return "   ".join(filter(None, parts))


def message(text: str) -> str:
    """A line that a plugin logged. Long lines are cut here; the record keeps them in full."""
    line = one_line(text)
    return line if len(line) <= _MESSAGE else f"{line[:_MESSAGE]} …"


def metrics(record: Record) -> Iterator[tuple[str, str]]:
    """(name and arm, value) of every metric: a curve by its first and last value, or a single number."""
    for name, arms in record.curves.items():
        x, _ = record.axes.get(name, ("", ""))
        timed = is_timed(name, x, (place for points in arms.values() for place, _ in points))
        for arm, points in arms.items():
            (first, before), (last, after) = points[0], points[-1]
            moved = first != last and number(before) != number(after)
            if timed:
                way = f"{number(before)} → {number(after)}, step {last}"
            else:
                way = f"{number(before)} at {number(first)}, {number(after)} at {number(last)}"
            yield _metric_name(name, arm), way if moved else number(after)
    for (name, arm), single in record.values.items():
        if arm not in record.curves.get(name, {}):
            yield _metric_name(name, arm), number(single)


def _metric_name(name: str, arm: str) -> str:
    return one_line(f"{name} ({arm})" if arm else name)


def end(record: Record) -> str:
    """`completed in 12 s, peak memory 1.2 GiB`."""
    peak = f", peak memory {format_bytes(record.memory_peak)}" if record.memory_peak else ""
    return f"{outcome(record.outcome)} in {format_duration(record.duration)}{peak}"


def how(record: Record) -> str:
    """`quick, seed 0, completed in 2 min, cpu (AMD EPYC), float32, ...`: how the run was configured, and how
    it ended.
    """
    asked = [record.job.budget, f"seed {record.job.seed}"] if record.job is not None else []
    return ", ".join(filter(None, [*asked, end(record), environment(record.environment)]))


def cause(record: Record) -> str:
    """Why a run did not complete, in one line."""
    text = f"{record.paper} {_ENDED.get(str(record.outcome), 'ended')}"
    error = record.error
    if error:
        phase = f" in {error['phase']}" if error.get("phase") else ""
        text += f"{phase}: {error.get('type', 'error')}: {error.get('message', '')}{_where(error)}"
    elif record.detail:
        text += f": {record.detail}"
    return one_line(text)


class Failure(NamedTuple):
    """The failure, its reason, and the next step."""

    what: str
    why: str
    next_step: str


def failure(record: Record) -> Failure | None:
    error = record.error or {}
    if not error and record.outcome in (None, "completed", "cancelled"):
        return None
    phase = str(error.get("phase") or record.phase)
    usage = error.get("kind") == "usage"
    after = "see the Log tab for the traceback and the run's output."
    if (step := _NEXT.get(str(record.outcome)) or (_NEXT["usage"] if usage else None)) is not None:
        after = f"press {key(step[0])} to {step[1]}."
    kind = "" if error.get("type") == "ReadtrackError" else error.get("type")
    said = ": ".join(str(part) for part in (kind, error.get("message")) if part)
    return Failure(
        f"Could not {_COULD_NOT.get(phase, 'finish the run')}.",
        f"{said}{_where(error)}" if said else record.detail or "nothing was recorded",
        after,
    )


def _where(error: Mapping[str, Any]) -> str:
    return f" ({error['where']})" if error.get("where") else ""
