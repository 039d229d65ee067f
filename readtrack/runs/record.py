"""A run's record, folded from its events, and the summary for tables."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, cast

from readtrack.runs import events
from readtrack.runs.events import OUTCOMES, Event, Outcome
from readtrack.runs.job import Job
from readtrack.text import counted, one_line, shortened

RunState = Literal["starting", "running", "not responding", "ended"]


SILENCE = 60.0  # seconds without a heartbeat until a run is "not responding"


_MAX_LOGS = 1000


class Progress(NamedTuple):
    label: str
    done: int
    total: int
    eta: float | None  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One row of the results table, and the content of `result.json`.

    started   ISO 8601, UTC
    outcome   None while the run is alive
    device    the device's full name if known
    duration  seconds
    claims    (name, verdict, our numbers as text)
    headline  how many measured claims held, and the result of the paper's headline claim (or of its first
              measured one), or the reason why no claim was judged
    condition `Job.condition`: "" for a plain run; any other run is not evidence for the paper
    only      the part that was run, "" for both
    unmeasured  names of claims that are identities or theorems, which are not evidence; None in files of
                older versions
    """

    run_id: str
    paper: str
    started: str
    outcome: Outcome | None
    detail: str
    device: str
    budget: str
    seed: int
    duration: float
    claims: tuple[tuple[str, str, str], ...]
    headline: str
    condition: str = ""
    only: str = ""
    unmeasured: tuple[str, ...] | None = ()

    @property
    def edited(self) -> str:
        """How its code differs from the shipped code (`Job.edited`), or ""."""
        return self.condition.partition("edited: ")[2]

    @property
    def data(self) -> str:
        """Names of the data sets that replace the paper's own (`Job.data`), or ""."""
        return self.condition.partition("data: ")[2].partition(", edited: ")[0]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RunSummary:
        """Returns a summary that is safe to print, whatever the origin of `fields`.

        Raises TypeError, ValueError or KeyError if they are not a summary.
        """
        if fields.get("outcome") not in OUTCOMES:
            raise ValueError("a result has an outcome")
        claims = tuple(
            (one_line(str(name)), one_line(str(verdict)), one_line(str(ours)))
            for name, verdict, ours in fields["claims"]
        )
        texts = {
            name: one_line(str(fields[name]))
            for name, field_ in cls.__dataclass_fields__.items()
            if field_.type == "str" and name in fields
        }
        numbers = {"seed": int(fields["seed"]), "duration": float(fields["duration"])}
        if not math.isfinite(numbers["duration"]):
            raise ValueError("the duration of a run is finite")
        names = fields.get("unmeasured")
        unmeasured = None if names is None else tuple(one_line(str(name)) for name in names)
        return cls(**{**fields, **texts, **numbers, "claims": claims, "unmeasured": unmeasured})


@dataclass(slots=True)
class Record:
    """A run's record so far. Begin with `from_job`, then `apply` each event; or `load` a folder.

    curves  metric name to arm to [(step, value), ...]; values: the last value of metrics without a step
    stated  the claims (`Claim.to_json`) that the run will judge; claims: the events of judged ones
    exercises  verdicts on the reader's functions, in a run of exercises
    headline_curve  the metric whose curve shows the paper's point, or ""
    roles   role of each arm; better: "lower" or "higher" by metric (`readtrack.runs.meaning`)
    axes    x and y axis labels by metric, "" for the default
    rate    steps per second of the current loop, or None; cpu: number of busy processors
    problems  files of the run's folder that cannot be read, and why

    Numbers that were not finite are NaN.
    """

    run_id: str
    paper: str
    job: Job | None = None
    started: str = ""
    outcome: Outcome | None = None
    detail: str = ""
    phase: str = ""
    phases: list[tuple[str, float]] = field(default_factory=list)
    progress: Progress | None = None
    progress_since: tuple[str, float, int] = ("", 0.0, 0)  # label, seconds, and number of steps done by then
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    values: dict[tuple[str, str], float] = field(default_factory=dict)
    stated: list[dict[str, Any]] = field(default_factory=list)
    claims: list[events.ClaimJudged] = field(default_factory=list)
    exercises: list[events.ExerciseJudged] = field(default_factory=list)
    headline_curve: str = ""
    roles: dict[str, str] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)
    axes: dict[str, tuple[str, str]] = field(default_factory=dict)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[events.Artifact] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: events.Error | None = None
    rate: float | None = None
    cpu: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    device_memory: int | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    duration: float = 0.0
    hello: events.Hello | None = None
    next_seq: int = 0
    expected: float | None = field(default=None, compare=False)  # expected seconds of the whole run
    arrived: float = field(default_factory=time.time, compare=False)  # when the last event arrived
    bad_events: int = 0
    problems: list[str] = field(default_factory=list)

    @classmethod
    def from_job(cls, job: Job, *, expected: float | None = None) -> Record:
        return cls(run_id=job.run_id, paper=job.paper, job=job, started=job.created, expected=expected)

    @property
    def state(self) -> RunState:
        if self.outcome is not None:
            return "ended"
        if self.hello is None:
            return "starting"
        return "not responding" if self.silence() > SILENCE else "running"

    @property
    def is_foreign(self) -> bool:
        """Whether the events were written on another machine."""
        import socket

        here = socket.gethostname()
        return bool(self.environment.get("host", here) != here)

    def silence(self) -> float:
        """Seconds since the last event of a live run, or since it arrived from another machine."""
        if self.job is not None and self.job.place:
            return max(0.0, time.time() - self.arrived)
        began = _epoch(self.started)
        spent = self.job.spent if self.job is not None else 0.0
        return max(0.0, time.time() - began - (self.duration - spent)) if began is not None else 0.0

    @property
    def elapsed(self) -> float:
        """Seconds that the run took. For a live run they also grow between events."""
        return self.duration + (self.silence() if self.outcome is None else 0.0)

    def apply(self, event: Event) -> None:
        """Apply one event. Unknown events and fields are ignored; malformed events are only counted."""
        try:
            self.next_seq = max(self.next_seq, int(event.get("seq", 0)) + 1)
            self.arrived = time.time()
            if math.isfinite(seconds := float(event.get("t", 0.0))):
                self.duration = max(self.duration, seconds)
            handler = _HANDLERS.get(event["event"])
            if handler is not None:
                handler(self, event)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self.bad_events += 1

    def summary(self) -> RunSummary:
        verdicts = tuple(
            (str(c["claim"]["name"]), str(c["verdict"]), str(c.get("ours", ""))) for c in self.claims
        )
        job = self.job
        return RunSummary(
            run_id=self.run_id,
            paper=self.paper,
            started=self.started,
            outcome=self.outcome,
            detail=self.detail,
            device=str(self.environment.get("device") or (job.device if job else "")),
            budget=job.budget if job else "",
            seed=job.seed if job else 0,
            duration=round(self.duration, 2),
            claims=verdicts,
            headline=self._headline(verdicts),
            condition=job.condition if job else "",
            only=(job.only or "") if job else "",
            unmeasured=tuple(str(c["claim"]["name"]) for c in self.claims if not _is_measured(c)),
        )

    def _headline(self, verdicts: tuple[tuple[str, str, str], ...]) -> str:
        if self.outcome not in (None, "completed"):
            return shortened(self.detail, 200)
        if verdicts:
            both = list(zip(verdicts, self.claims, strict=True))
            measured = [(said, c) for said, c in both if _is_measured(c)] or both
            measured.sort(key=lambda pair: not pair[1]["claim"].get("headline"))
            counted_ones = [said for said, _ in measured]
            held = sum(said in ("held", "weak") for _, said, _ in counted_ones)
            judged = any(said != "not judged" for _, said, _ in counted_ones)
            count = f"{held} of {len(counted_ones)} held" if judged else "no claim judged"
            # A failed identity is more informative than a comparison that was not judged.
            fell = [] if judged else [v for v in verdicts if v[1] == "missed"]
            name, verdict, ours = [*fell, *counted_ones][0]
            return shortened(f"{count}; {name}: {verdict}{', ' if ours else ''}{ours}", 200)
        return counted(len(self.measurements), "measurement") if self.measurements else ""


def _is_measured(judged: events.ClaimJudged) -> bool:
    return judged["claim"].get("kind") in (None, "measured")


def _on_hello(record: Record, event: events.Hello) -> None:
    record.hello = event
    record.paper = str(event["paper"])
    if record.job is None or not record.job.place:  # clocks elsewhere may be wrong
        record.started = str(event["at"])
    for name in ("readtrack", "python", "host"):
        record.environment[name] = event.get(name)


def _on_phase(record: Record, event: events.Phase) -> None:
    record.phase = str(event["name"])
    record.phases.append((record.phase, _finite(event["t"])))
    record.progress, record.rate = None, None


def _on_environment(record: Record, event: events.Environment) -> None:
    stamp = ("v", "seq", "t", "event", "not_finite")
    record.environment.update({name: value for name, value in event.items() if name not in stamp})


def _on_progress(record: Record, event: events.Progressed) -> None:
    eta = event.get("eta")
    label, done, at = str(event["label"]), int(_finite(event["done"])), _finite(event.get("t") or 0.0)
    total = int(_finite(event["total"]))
    record.progress = Progress(label, done, total, None if eta is None else _finite(eta))
    before, since, first = record.progress_since
    if label != before or done < first or (record.rate is None and done == 0):
        record.progress_since, record.rate = (label, at, done), None
    elif at > since and done > first:
        record.rate = (done - first) / (at - since)


def _on_metric(record: Record, event: events.Metric) -> None:
    name, arm = str(event["name"]), str(event.get("arm") or "")
    value = _number(event["value"])
    step = event.get("step")
    if step is None:
        record.values[name, arm] = value
    else:
        place = _finite(step)
        point = step if isinstance(step, int) else place
        record.curves.setdefault(name, {}).setdefault(arm, []).append((point, value))


def _on_claim(record: Record, event: events.ClaimJudged) -> None:
    if not isinstance(event["claim"]["name"], str) or not isinstance(event["verdict"], str):
        raise TypeError("a claim has a name and a verdict")
    numbers = {str(name): _number(value) for name, value in event["values"].items()}
    at_least, edges = list(event.get("at_least") or ()), list(event.get("edges") or ())
    record.claims.append({**event, "values": numbers, "at_least": at_least, "edges": edges})


def _on_stated(record: Record, event: events.ClaimsStated) -> None:
    claims = list(event["claims"])
    if not all(isinstance(claim["name"], str) for claim in claims):
        raise TypeError("a claim has a name")
    record.stated = claims


def _on_exercise(record: Record, event: events.ExerciseJudged) -> None:
    if not isinstance(event["name"], str) or not isinstance(event["outcome"], str):
        raise TypeError("an exercise has a name and an outcome")
    report = [str(line) for line in event.get("report") or ()]
    found = {"report": report, "hint": str(event.get("hint") or ""), "line": int(event.get("line") or 0)}
    record.exercises.append(cast("events.ExerciseJudged", {**event, **found}))


def _on_headline(record: Record, event: events.Headline) -> None:
    record.headline_curve = str(event["metric"])


def _on_axes(record: Record, event: events.AxesNamed) -> None:
    record.axes[str(event["metric"])] = str(event.get("x") or ""), str(event.get("y") or "")


def _on_meaning(record: Record, event: events.Meaning) -> None:
    record.roles |= {str(name): str(role) for name, role in (event.get("roles") or {}).items()}
    record.better |= {str(name): str(way) for name, way in (event.get("better") or {}).items()}


def _on_measurement(record: Record, event: dict[str, Any]) -> None:
    # A later round replaces the measurement with one from more samples.
    key = [event.get(name) for name in ("case", "axes", "variant", "mode", "dtype")]
    for index, earlier in enumerate(record.measurements):
        if [earlier.get(name) for name in ("case", "axes", "variant", "mode", "dtype")] == key:
            record.measurements[index] = event
            return
    record.measurements.append(event)


def _on_heartbeat(record: Record, event: events.Heartbeat) -> None:
    record.memory = int(_finite(event["rss"]))
    record.memory_peak = max(record.memory_peak or 0, record.memory)
    if event.get("cpu") is not None:
        record.cpu = _finite(event["cpu"])
    on_device = event.get("device_memory")
    if on_device is not None:
        record.device_memory = int(_finite(on_device))


def _on_log(record: Record, event: events.Said) -> None:
    record.logs.append(str(event["text"]))
    del record.logs[:-_MAX_LOGS]


def _on_error(record: Record, event: events.Error) -> None:
    record.error = event


def _on_end(record: Record, event: events.End) -> None:
    # The first end counts, because two observers may have ended the same run.
    if record.outcome is None and event["outcome"] in OUTCOMES:
        record.outcome = event["outcome"]
        record.detail = str(event.get("detail") or "")
        record.progress, record.rate = None, None


_HANDLERS: dict[str, Callable[[Record, Any], None]] = {
    "hello": _on_hello,
    "phase": _on_phase,
    "environment": _on_environment,
    "progress": _on_progress,
    "metric": _on_metric,
    "claims": _on_stated,
    "claim": _on_claim,
    "exercise": _on_exercise,
    "headline": _on_headline,
    "axes": _on_axes,
    "meaning": _on_meaning,
    "measurement": _on_measurement,
    "artifact": lambda record, event: record.artifacts.append(event),
    "log": _on_log,
    "warning": lambda record, event: record.warnings.append(str(event["text"])),
    "heartbeat": _on_heartbeat,
    "error": _on_error,
    "end": _on_end,
}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _finite(value: float) -> float:
    """The number as a float. Raises ValueError if it is not finite."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("a number is missing")
    return number


def _epoch(at: str) -> float | None:
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return None
