"""The runs of `readtrack verify` over papers, conditions and seeds, in parallel, reusing earlier runs."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from readtrack import __version__
from readtrack.bench.judge import CONTENDED, RUNS, Speedup, judge
from readtrack.claims import Claim
from readtrack.home import Home
from readtrack.procedure import LOOKS, MORE, MOST_SEEDS
from readtrack.runs import launcher
from readtrack.runs.job import Job, new_job
from readtrack.runs.record import Record
from readtrack.runs.store import load, summaries
from readtrack.verdicts import judge_over_seeds, rule_seeds

Budget = Literal["quick", "full"]

# Seconds after which an experiment counts as hung. "quick" is meant to take one minute.
_TIMEOUT: dict[Budget, float | None] = {"quick": 1200.0, "full": None}


class Condition(NamedTuple):
    """The condition of a run: plain, null run, break, benchmark instead of experiment, or more steps."""

    null: bool = False
    broken: str = ""
    timed: bool = False
    times: int = 1

    def __str__(self) -> str:
        return (
            "benchmark, null run"
            if self.null and self.timed
            else "null run"
            if self.null
            else f"break: {self.broken}"
            if self.broken
            else "benchmark"
            if self.timed
            else f"{self.times} times the steps"
            if self.times > 1
            else ""
        )


NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
PLAIN = Condition()
TIMED = Condition(timed=True)
NULL_TIMED = Condition(null=True, timed=True)
LONGER = Condition(times=MORE)


class Task(NamedTuple):
    paper: str
    condition: Condition
    seed: int


class VerifyEvent(NamedTuple):
    """Progress of a task: "started", "reused" (an earlier run counts), or "ended".

    ended, total  number of tasks done so far and in all. The total grows while claims are undecided
    """

    kind: Literal["started", "reused", "ended"]
    task: Task
    record: Record
    ended: int
    total: int


@dataclass(slots=True)
class _Trial:
    """A paper under one condition: its seeds in order, and the runs so far."""

    seeds: list[int]
    claims: list[Claim]  # the claims that the condition concerns
    planned: int
    runs: dict[int, Record] = field(default_factory=dict)

    def claim_events(self) -> dict[int, Sequence[Mapping[str, Any]] | None]:
        return {
            seed: self.runs[seed].claims if self.runs[seed].outcome == "completed" else None
            for seed in self.seeds
            if seed in self.runs
        }


class Verification:
    """Runs every paper's experiment on the seeds of its rules. Call `step` ten times a second until `done`.

    papers      claims by paper
    conditions  null, breaks: whether to run the null runs, and the breaks of claims that stand without them
    seeds       seeds for every paper instead of the rules' (an audit), or None
    code        digest of each paper's code, which its runs record
    place       the machine that performs the runs, "" for this one; start: starts a run there
    settings    the settings of every run, such as `--data`
    """

    def __init__(
        self,
        papers: Mapping[str, Sequence[Claim]],
        *,
        null: bool,
        breaks: bool,
        seeds: Sequence[int] | None,
        jobs: int,
        device: str,
        budget: Budget,
        earlier: Mapping[Task, Record],
        code: Mapping[str, str],
        place: str = "",
        settings: Mapping[str, str] = NO_SETTINGS,
        start: Callable[[Job], launcher.Running],
    ) -> None:
        self._start = start
        self._settings = dict(settings)
        self._place = place
        self._code = code
        self._jobs = jobs
        self._device = device
        self._budget = budget
        self._earlier = earlier
        self._running: dict[Task, launcher.Running] = {}
        self._waiting: deque[Task] = deque()
        self._trials: dict[tuple[str, Condition], _Trial] = {}
        for paper, claims in papers.items():
            order = list(seeds) if seeds is not None else rule_seeds(claims, MOST_SEEDS)
            for condition, about in _conditions(claims, null=null, breaks=breaks):
                planned = RUNS if condition.timed else LOOKS[0].seeds
                if condition == LONGER:  # uses only the seeds that are not evidence
                    chosen = sorted({seed for claim in about for seed in claim.chosen_on}) or [0, 1]
                    self._trials[paper, condition] = _Trial(chosen, about, len(chosen))
                    continue
                self._trials[paper, condition] = _Trial(order, about, planned)
        for paper, condition in sorted(self._trials, key=lambda place: self._stage(*place)):
            trial = self._trials[paper, condition]
            self._waiting.extend(Task(paper, condition, seed) for seed in trial.seeds[: trial.planned])

    @property
    def done(self) -> bool:
        return not self._waiting and not self._running

    def records(self, paper: str, condition: Condition = PLAIN) -> dict[int, Record]:
        """The ended runs by seed, in the order of the seeds."""
        trial = self._trials.get((paper, condition))
        return {seed: trial.runs[seed] for seed in trial.seeds if seed in trial.runs} if trial else {}

    def claim_events(
        self, paper: str, condition: Condition = PLAIN
    ) -> dict[int, Sequence[Mapping[str, Any]] | None]:
        """The runs' `claim` events by seed, None for an incomplete run: the input of `judge_over_seeds`."""
        trial = self._trials.get((paper, condition))
        return trial.claim_events() if trial else {}

    def benchmarks(self, paper: str, condition: Condition = TIMED) -> list[list[dict[str, Any]]]:
        """The measurements of each run of the paper's benchmark, where a claim needs it."""
        return [run.measurements for run in self.records(paper, condition).values()]

    def step(self) -> list[VerifyEvent]:
        """Collect the runs that have ended and start the next ones.

        Raises ReadtrackError if a run cannot be started; then call `cancel`, and `step` until `done`.
        """
        happened = []
        for task, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[task]
                happened.append(self._keep("ended", task, load(process.folder)))
        while self._waiting and len(self._running) < self._jobs:
            beside = (self._waiting[0].condition, next(iter(self._running), self._waiting[0]).condition)
            if self._running and any(condition.timed for condition in beside):
                break
            standing = self._claim_stands(self._waiting[0])
            if standing is None:
                break
            task = self._waiting.popleft()
            if not standing:
                self._trials[task.paper, task.condition].planned -= 1
                continue
            if task in self._earlier and not self._contended(task):
                happened.append(self._keep("reused", task, self._earlier[task]))
                continue
            job = new_job(
                task.paper,
                device=self._device,
                budget=self._budget,
                only="benchmark" if task.condition.timed else "experiment",
                seed=task.seed,
                null=task.condition.null,
                broken=task.condition.broken,
                times=task.condition.times,
                timeout=_TIMEOUT[self._budget],
                place=self._place,
                code=self._code.get(task.paper, ""),
                settings=self._settings,
            )
            self._running[task] = self._start(job)
            happened.append(self._event("started", task, Record.from_job(job)))
        return happened

    def _stage(self, paper: str, condition: Condition) -> int:
        """When the condition's runs start: 0 for the first ones.

        Rivals wait for the plain runs' verdict, so null runs come before them. The other breaks and longer
        runs wait for the rivals. Benchmarks come last, one at a time and alone, because other runs would
        disturb them.
        """
        if condition.timed:
            return 4
        if condition in (PLAIN, Condition(null=True)):
            return int(condition.null)
        rivals = {name for claim in self._trials[paper, condition].claims for name in claim.rivals}
        return 2 if condition.broken in rivals else 3

    def _claim_stands(self, task: Task) -> bool | None:
        """Whether the task can change a verdict; None while runs that decide this are incomplete.

        A break or more steps can only refute a claim, so the runs of earlier stages must have left it
        standing: the plain runs and, for all breaks but the rivals, the rivals' runs.
        """
        stage = self._stage(task.paper, task.condition)
        if stage not in (2, 3):
            return True
        claims = self._trials[task.paper, task.condition].claims
        names = dict.fromkeys(name for claim in claims for name in claim.rivals) if stage == 3 else {}
        rivals = {name: self._trials[task.paper, Condition(broken=name)] for name in names}
        plain = self._trials[task.paper, PLAIN]
        if any(len(trial.runs) < trial.planned for trial in (plain, *rivals.values())):
            return None
        of_rivals = {
            name: {one.claim.name: one.verdict for one in judge_over_seeds(task.paper, trial.claim_events())}
            for name, trial in rivals.items()
        }
        about = {claim.name for claim in claims}
        for one in judge_over_seeds(task.paper, plain.claim_events()):
            own = one.claim.name
            if own not in about:
                continue
            broken = {name: verdicts[own] for name, verdicts in of_rivals.items() if own in verdicts}
            # Times are measured last.
            if one.claim.timed or one.beside(broken).verdict in ("reproduced", "weak"):
                return True
        return False

    def _contended(self, task: Task) -> bool:
        """Whether other programs disturbed the earlier benchmark too much to judge a claim."""
        measured = self._earlier[task].measurements
        bounds = [bound for claim in self._trials[task.paper, task.condition].claims for bound in claim.timed]
        return task.condition.timed and any(judge(bound, measured).obstacle == CONTENDED for bound in bounds)

    def cancel(self) -> launcher.StopLevel | None:
        """Start no more runs, stop the running ones (harder with each call), and return the stop level."""
        self._waiting.clear()
        levels = [process.cancel() for process in self._running.values()]
        return max(levels, key=launcher.STOP_LEVELS.index, default=None)

    def _keep(self, kind: Literal["reused", "ended"], task: Task, record: Record) -> VerifyEvent:
        trial = self._trials[task.paper, task.condition]
        trial.runs[task.seed] = record
        wanted = self._wanted(task.paper, task.condition, trial)
        if wanted > trial.planned and record.outcome != "cancelled":
            more = [Task(task.paper, task.condition, seed) for seed in trial.seeds[trial.planned : wanted]]
            trial.planned = wanted
            self._waiting.extendleft(reversed(more))
        return self._event(kind, task, record)

    def _wanted(self, paper: str, condition: Condition, trial: _Trial) -> int:
        """The number of seeds that the trial needs so far, the maximum over its claims."""
        events = trial.claim_events()
        if condition.timed or condition == LONGER or len(events) < trial.planned or None in events.values():
            return trial.planned
        about = {claim.name for claim in trial.claims}
        wanted = [one.wants for one in judge_over_seeds(paper, events) if one.claim.name in about]
        return min(max(wanted, default=trial.planned), len(trial.seeds))

    def _event(self, kind: Literal["started", "reused", "ended"], task: Task, record: Record) -> VerifyEvent:
        ended = sum(len(trial.runs) for trial in self._trials.values())
        return VerifyEvent(kind, task, record, ended, sum(trial.planned for trial in self._trials.values()))


def _conditions(
    claims: Sequence[Claim], *, null: bool, breaks: bool
) -> Iterable[tuple[Condition, list[Claim]]]:
    measured = [claim for claim in claims if claim.kind == "measured"]
    yield PLAIN, list(claims)
    if any(claim.timed for claim in claims):
        yield TIMED, [claim for claim in claims if claim.timed]
    if null and any(isinstance(bound, Speedup) for claim in measured for bound in claim.timed):
        yield NULL_TIMED, [claim for claim in measured if claim.timed]
    if null and (by_experiment := [claim for claim in measured if not claim.timed]):
        yield Condition(null=True), by_experiment
    if breaks:
        if stated := [claim for claim in measured if claim.after_steps]:
            yield LONGER, stated
        for name in dict.fromkeys(one.name for claim in measured for one in claim.breaks):
            yield (
                Condition(broken=name),
                [claim for claim in measured if name in {one.name for one in claim.breaks}],
            )


def earlier_runs(
    home: Home,
    code: Mapping[str, str],
    edited: Mapping[str, str],
    *,
    device: str,
    budget: Budget,
    place: str = "",
    settings: Mapping[str, str] = NO_SETTINGS,
) -> dict[Task, Record]:
    """The newest completed run of each task that need not be repeated.

    Such a run was made at this place by this version of readtrack, for the same device, with the same paper
    code, budget and settings.

    code    `readtrack.plugins.code.digest` of each paper's code
    edited  summary of the reader's edits, by paper
    """
    found: dict[Task, Record] = {}
    for run in summaries(home):
        if run.outcome != "completed" or run.budget != budget or run.paper not in code:
            continue
        record = load(home.runs / run.run_id)
        if record.job is None:
            continue
        timed = record.job.only == "benchmark"
        condition = Condition(record.job.null, record.job.broken, timed, record.job.times)
        task = Task(run.paper, condition, run.seed)
        same_code = (record.job.code, record.job.edited) == (code[run.paper], edited.get(run.paper, ""))
        if task not in found and same_code and _same(record, device, place, settings):
            found[task] = record
    return found


def _same(record: Record, device: str, place: str, settings: Mapping[str, str]) -> bool:
    job, environment = record.job, record.environment
    return (
        job is not None
        and (job.device, job.dtype, job.settings, job.place) == (device, "auto", settings, place)
        and (place != "" or environment.get("host") == socket.gethostname())
        and environment.get("readtrack") == __version__
    )
