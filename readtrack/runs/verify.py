"""The runs behind the table of verdicts: papers times seeds, some of them at once, none made twice."""

from __future__ import annotations

import importlib.util
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from readtrack import __version__
from readtrack.discovery import PluginRef
from readtrack.home import Home
from readtrack.runs import launcher
from readtrack.runs.job import new_job
from readtrack.runs.record import Record, load, summaries
from readtrack.verdicts import seeds_wanted

Budget = Literal["quick", "full"]

# Seconds after which an experiment is hung rather than slow: "quick" is meant to take one minute.
_TIMEOUT: dict[Budget, float | None] = {"quick": 1200.0, "full": None}


class Task(NamedTuple):
    paper: str
    seed: int


class News(NamedTuple):
    """What happened to a task: "started", "taken" from an earlier run, or "ended".

    ended, total  how many tasks were done by then, of how many; the total grows when a claim turns out to
                  ask for more seeds
    """

    what: Literal["started", "taken", "ended"]
    task: Task
    record: Record
    ended: int
    total: int


class Verification:
    """Runs every paper's experiment on seeds `first_seed`, `first_seed + 1`, ...: `seeds` of them, or as many
    as a claim of the paper asks for. Call `step` about ten times a second until `done`.

    records  paper to seed to the run that ended, in the order in which they ended
    """

    def __init__(
        self,
        home: Home,
        papers: Iterable[str],
        *,
        seeds: int,
        first_seed: int,
        jobs: int,
        device: str,
        budget: Budget,
        earlier: Mapping[Task, Record],
    ) -> None:
        self.records: dict[str, dict[int, Record]] = {paper: {} for paper in papers}
        self._home = home
        self._first_seed = first_seed
        self._jobs = jobs
        self._device = device
        self._budget = budget
        self._earlier = earlier
        self._planned = dict.fromkeys(self.records, seeds)
        self._waiting = deque(
            Task(paper, first_seed + index) for paper in self.records for index in range(seeds)
        )
        self._running: dict[Task, launcher.Process] = {}

    @property
    def done(self) -> bool:
        return not self._waiting and not self._running

    def step(self) -> list[News]:
        """Take in the runs that have ended and start the next ones.

        Raises ReadtrackError if a run cannot be started; then call `cancel` and step on until `done`.
        """
        news = []
        for task, process in list(self._running.items()):
            if process.poll() is not None:
                del self._running[task]
                news.append(self._keep("ended", task, load(process.folder)))
        while self._waiting and len(self._running) < self._jobs:
            task = self._waiting.popleft()
            if task in self._earlier:
                news.append(self._keep("taken", task, self._earlier[task]))
                continue
            job = new_job(
                task.paper,
                device=self._device,
                budget=self._budget,
                only="experiment",
                seed=task.seed,
                timeout=_TIMEOUT[self._budget],
            )
            self._running[task] = launcher.start(job, self._home)
            news.append(self._news("started", task, Record.from_job(job)))
        return news

    def cancel(self) -> launcher.Rung | None:
        """Start no more, and ask the running ones to stop, each further time harder. None if none runs."""
        self._waiting.clear()
        rungs = [process.cancel() for process in self._running.values()]
        return max(rungs, key=launcher.RUNGS.index, default=None)

    def _keep(self, what: Literal["taken", "ended"], task: Task, record: Record) -> News:
        self.records[task.paper][task.seed] = record
        planned = self._planned[task.paper]
        wanted = seeds_wanted(record.claims) if record.outcome == "completed" else 0
        if wanted > planned:
            self._planned[task.paper] = wanted
            more = (Task(task.paper, self._first_seed + index) for index in range(planned, wanted))
            self._waiting.extendleft(reversed(list(more)))
        return self._news(what, task, record)

    def _news(self, what: Literal["started", "taken", "ended"], task: Task, record: Record) -> News:
        ended = sum(map(len, self.records.values()))
        return News(what, task, record, ended, sum(self._planned.values()))


def earlier_runs(
    home: Home, changed: Mapping[str, float], *, first_seed: int, device: str, budget: Budget
) -> dict[Task, Record]:
    """The newest completed run of each task that a new run would only repeat: made on this machine by this
    version of readtrack, with the same device and budget and no settings, since the paper last changed.

    changed  paper to the time (seconds since the epoch) at which its code last changed
    """
    found: dict[Task, Record] = {}
    for run in summaries(home):
        task = Task(run.paper, run.seed)
        if run.outcome != "completed" or run.budget != budget or run.seed < first_seed:
            continue
        if run.paper in changed and task not in found:
            record = load(home.runs / run.run_id)
            if _same(record, device) and _started(record) > changed[run.paper]:
                found[task] = record
    return found


def _same(record: Record, device: str) -> bool:
    job, environment = record.job, record.environment
    return (
        job is not None
        and (job.device, job.dtype, job.settings) == (device, "auto", {})
        and job.only != "benchmark"
        and environment.get("host") == socket.gethostname()
        and environment.get("readtrack") == __version__
    )


def _started(record: Record) -> float:
    try:
        return datetime.fromisoformat(record.started).timestamp()
    except ValueError:
        return 0.0


def last_change(
    paper: str, plugins: Mapping[str, PluginRef], builds_on: Mapping[str, tuple[str, ...]]
) -> float:
    """When the code of `paper`, or of one that it builds on, was last written: seconds since the epoch."""
    seen, names = set(), [paper]
    newest = 0.0
    while names:
        name = names.pop()
        if name in seen or name not in plugins:
            continue
        seen.add(name)
        names += builds_on.get(name, ())
        newest = max([newest, *(file.stat().st_mtime for file in _files(plugins[name]))])
    return newest


def _files(plugin: PluginRef) -> list[Path]:
    if plugin.origin == "installed":
        # The whole distribution's package: to find a module inside it would import it.
        spec = importlib.util.find_spec(plugin.location.partition(".")[0])
        main = Path(spec.origin) if spec and spec.origin else None
    else:
        main = Path(plugin.location)
    if main is None:
        return []
    if main.name != "__init__.py":
        return [main]
    return [path for path in main.parent.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
