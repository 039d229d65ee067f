"""The runs that the app manages: the current one, the queue, and past results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from readtrack import signs
from readtrack.errors import ReadtrackError
from readtrack.home import modified
from readtrack.present.actions import key
from readtrack.runs.queue import Queue, moved, without
from readtrack.text import counted, one_line
from readtrack.tui import news
from readtrack.tui.widgets.line_view import drawn_line

if TYPE_CHECKING:
    from pathlib import Path

    from textual.timer import Timer

    from readtrack.present.claims import Baseline
    from readtrack.runs.job import Job
    from readtrack.runs.launcher import Running
    from readtrack.runs.record import RunSummary
    from readtrack.tui.run_follower import RunFollower
    from readtrack.tui.shell import Shell

_LOOK_AGAIN = 10.0  # seconds
_DRAW_EVERY = 0.2  # seconds between redraws, because the run trains on the same processor
_CLOCK = 2.0  # seconds after which the elapsed time is redrawn without new events


class RunController:
    """`alive` is the run in progress. `waiting` are the queued jobs, which start one after another.

    results       summaries of all runs, newest first
    left_running  the paper whose run the reader let continue when they quit the app
    Call all methods in the app's thread.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.alive: RunFollower | None = None
        self.results: list[RunSummary] = []
        self._queue = Queue(shell.library.home)
        self.waiting: list[Job] = []
        self._alive_unseen: list[Running] = []
        self._left_alone: set[Path] = set()
        self._unsettled: Timer | None = None
        self.left_running = ""
        self.leaving = False
        self._reported: set[str] = set()
        self._asked: Job | None = None  # the last requested run
        self._runs_seen: tuple[int, ...] | None = None  # when the runs' folder and open runs last changed

    def start(self, job: Job) -> RunFollower | None:
        """Start the job and return its run, or queue it and return None while another run is in progress."""
        if self.alive is None:
            self._launch(job)
            return self.alive
        if self._is_doubled(job):
            self._shell.say(
                (job.paper, "bold"), " is already running or queued. Press again to queue it once more."
            )
            return None
        if not self._change_queue(lambda jobs: [*jobs, job]):
            return None
        before = self.alive.record.paper
        more = f" and {len(self.waiting) - 1} more" if len(self.waiting) > 1 else ""
        self._shell.say(
            (f"{signs.QUEUED} ", "$reading"),
            (job.paper, "bold"),
            f" runs after {before}{more}",
            (f"   {key('queue')} shows the queue", "$muted"),
        )
        return None

    def _is_doubled(self, job: Job) -> bool:
        """Whether the same run is in progress or queued, unless the reader has just requested it a second
        time.
        """
        asked, self._asked = self._asked, _request(job)
        known = [*self.waiting, *filter(None, [self.alive.record.job if self.alive is not None else None])]
        return asked != self._asked and self._asked in map(_request, known)

    def _change_queue(self, change: Callable[[list[Job]], list[Job]]) -> bool:
        try:
            self.waiting = self._queue.change(change)
        except ReadtrackError as error:
            self._shell.fail("change the queue", error, "run `readtrack doctor` to find the cause.")
            return False
        self._shell.post(news.QueueChanged())
        return True

    def move(self, run_id: str, step: int) -> None:
        self._change_queue(lambda jobs: moved(jobs, run_id, step))

    def drop(self, run_id: str) -> None:
        self._change_queue(lambda jobs: without(jobs, run_id))

    def clear(self) -> None:
        self._change_queue(lambda jobs: [])

    def begin(self) -> None:
        """Start the first queued run. Does nothing while a run is in progress, because the queue then
        continues itself.
        """
        while self.alive is None and (job := self._next()) is not None:
            self._launch(job)

    def _next(self) -> Job | None:
        try:
            job = self._queue.take()
        except ReadtrackError as error:
            self._shell.fail(
                "take a run from the queue",
                error,
                f"free some space, then press {key('queue')} and r to continue.",
            )
            return None
        self.waiting = self._queue.jobs()
        return job

    def _launch(self, job: Job) -> None:
        from readtrack.places.launch import start
        from readtrack.runs.evidence import expected
        from readtrack.runs.record import Record
        from readtrack.tui.run_follower import RunFollower

        try:
            process = start(job, self._shell.library)
        except ReadtrackError as error:
            self._shell.fail(f"run {job.paper}", error, "run `readtrack doctor` to find the cause.")
            return
        record = Record.from_job(process.job, expected=expected(process.job, self.results))
        self.follow(RunFollower(process, record))

    def follow(self, follower: RunFollower) -> None:
        self.alive = follower
        self._shell.run_worker(self._watch(follower), group="follow", exit_on_error=False)
        self._shell.post(news.QueueChanged())

    async def _watch(self, follower: RunFollower) -> None:
        """Follow the run until it ends, or until the user quits and lets it continue."""
        undrawn, drawn_at, contact = False, 0.0, ""
        while not follower.ended:
            await asyncio.sleep(follower.period)
            try:
                undrawn |= await follower.look()
                if self.alive is not follower:
                    return
                if follower.process.contact != contact:  # connection state of a run on another machine
                    contact = follower.process.contact
                    self._shell.say(one_line(contact) or "The run's machine answers again.")
                patience = 0.0 if follower.ended else _DRAW_EVERY if undrawn else _CLOCK
                if time.monotonic() - drawn_at >= patience:
                    undrawn, drawn_at = False, time.monotonic()
                    self._shell.post(news.RunChanged(follower.record, follower.folder))
            except Exception as error:
                self.alive = None
                self._shell.fail(
                    "follow the run", error, "`readtrack results` shows the run once it has ended."
                )
                return
        self._ended(follower)

    def _ended(self, follower: RunFollower) -> None:
        from readtrack.tui.bet_news import told
        from readtrack.tui.widgets.run_pages import ending

        self.alive = None
        if self.leaving:
            self._shell.exit(0)
            return
        news_of_bet = told(self._shell, follower.record)
        self._shell.say(*news_of_bet, drawn_line(lambda: ending(follower.record)))
        self.read_results()
        self.begin()

    def cancel(self) -> None:
        """Stop the run in progress, with more force each time."""
        assert self.alive is not None
        level = self.alive.cancel()
        words = {
            "asked": "Asked the run to stop. It may finish its current step.",
            "interrupted": "Interrupted the run (SIGINT).",
            "terminated": "Terminated the run (SIGTERM).",
            "killed": "Killed the run (SIGKILL).",
        }
        more = "" if level == "killed" else "  press c again to force it"
        self._shell.say((f"{signs.STOPPED} {level}  ", "bold $reading"), words[level], (more, "$muted"))

    def plain_run(self, plugin: str) -> RunSummary | None:
        """The newest completed run without a break that judged a claim. Smoke runs are too short and do not
        count.
        """
        plain = (
            one
            for one in self.results
            if one.paper == plugin and one.outcome == "completed" and not one.condition
        )
        judged = (one for one in plain if any(verdict != "not judged" for _, verdict, _ in one.claims))
        return next((one for one in judged if one.budget != "smoke"), None)

    def baseline(self, plugin: str) -> Baseline:
        """The reference for a run with a break: the newest plain run, or the shipped verdicts."""
        from readtrack.present.claims import Baseline

        plain = self.plain_run(plugin)
        if plain is not None:
            when = plain.started[:16].replace("T", " ")
            source = f"the plain run of {when}, {plain.budget} budget, seed {plain.seed}"
            return Baseline({name: verdict for name, verdict, _ in plain.claims}, "plain run", source)
        shipped = self._shell.library.shipped_verdicts.get(plugin, [])
        return Baseline({one.claim: one.verdict for one in shipped}, "shipped", "the shipped verdicts")

    # Runs in the home folder

    def look(self) -> None:
        """Mark runs without a process as ended, follow a live one, and read the results."""
        self._shell.in_background("look for runs", self._reconcile)

    def look_for_changes(self) -> None:
        """Look again when a run has been started, ended or removed by another process."""
        seen = self._runs_seen
        runs = self._shell.library.home.runs
        open_runs = (runs / one.run_id / "result.json" for one in self.results if one.outcome is None)
        self._runs_seen = (modified(runs), *map(modified, open_runs))
        if seen is not None and self._runs_seen != seen:
            self.look_again()

    def look_again(self) -> None:
        """Look again for runs of other terminals, and for folders copied from other machines."""
        if self.alive is None:
            self.look()
        else:
            self.read_results()

    def _reconcile(self) -> None:
        from readtrack.runs.evidence import expected
        from readtrack.runs.processes import reconcile
        from readtrack.runs.record import Record
        from readtrack.tui.run_follower import RunFollower

        library = self._shell.library
        reconcile(library.home, report=self._report)
        results = library.results(report=self._report)
        found = [self._attach(library.home.runs / one.run_id) for one in results if one.outcome is None]
        # Only one run is shown, but the events of all runs on other machines are fetched.
        self._alive_unseen = [process for process in found if process is not None]
        follower = None
        if self._alive_unseen:
            process = self._alive_unseen.pop(0)
            job = process.job
            follower = RunFollower(process, Record.from_job(job, expected=expected(job, results)))
            follower.catch_up()
        self._shell.call_from_thread(self._known, results, follower)

    def _attach(self, folder: Path) -> Running | None:
        from readtrack.places.launch import attach

        try:
            return attach(folder)
        except ReadtrackError as error:
            if folder not in self._left_alone:  # do not follow a run that the reader has left
                self._left_alone.add(folder)
                self._shell.call_from_thread(self._shell.say, str(error))
            return None

    def _known(self, results: list[RunSummary], follower: RunFollower | None) -> None:
        self._results_came(results)
        alive = [one.run_id for one in results if one.outcome is None]
        if alive and follower is None and self.alive is None:
            # The process has just ended, or is not visible to us. Look again until the state is clear.
            if self._unsettled is not None:
                self._unsettled.stop()
            self._unsettled = self._shell.set_timer(_LOOK_AGAIN, self.look)
        if follower is not None and self.alive is None:
            self.follow(follower)
            self._shell.say(
                "A run of ",
                (follower.record.paper, "bold"),
                f" is still in progress. Press {key('live_run')} to see it.",
            )
        self._find_queue()

    def _find_queue(self) -> None:
        """Take over the runs that were queued before the app was closed. They wait until the user starts the
        queue.
        """
        found, new = self._queue.jobs(), not self.waiting
        self.waiting = found
        if found and new and self.alive is None:
            count = counted(len(found), "queued run")
            self._shell.say(
                f"{count} from an earlier session {'waits' if len(found) == 1 else 'wait'}.",
                (f"   {key('queue')}, then r starts {'it' if len(found) == 1 else 'them'}", "$muted"),
            )
        self._shell.post(news.QueueChanged())

    def read_results(self) -> None:
        def read() -> None:
            results = self._shell.library.results(report=self._report)
            self._shell.call_from_thread(self._results_came, results)

        self._shell.in_background("read the results", read)

    def _report(self, problem: str) -> None:
        """Report a run that cannot be read, once. Called in a thread."""
        if problem not in self._reported:
            self._reported.add(problem)
            self._shell.call_from_thread(self._shell.warn, one_line(problem))

    def _results_came(self, results: list[RunSummary]) -> None:
        if results != self.results:
            self.results = results
            self._shell.post(news.ResultsChanged())

    # Leaving

    def keep_running(self) -> None:
        """Leave the app, and let the run continue."""
        assert self.alive is not None
        try:
            self.alive.process.detach()
        except ReadtrackError as error:
            self._shell.fail("let the run continue", error, "stay here, or stop it.")
            return
        self.left_running = self.alive.record.paper
        self.alive = None
        self._shell.exit(0)

    def left(self) -> list[str]:
        """Sentences about the runs that continue after the reader quits."""
        said = (
            [f"{self.left_running} is still running. Start readtrack to see it."] if self.left_running else []
        )
        return said + (
            [f"{self.kept_queue} Press {key('queue')}, then r to start it."] if self.waiting else []
        )

    @property
    def kept_queue(self) -> str:
        """`2 queued runs are kept, and wait for the next start.`, or "" if none are."""
        if not self.waiting:
            return ""
        are = "is kept, and waits" if len(self.waiting) == 1 else "are kept, and wait"
        return f"{counted(len(self.waiting), 'queued run')} {are} for the next start."

    def leave_alone(self) -> None:
        """Let the run continue after the terminal was closed or the app crashed."""
        if self.alive is not None and not self.leaving:
            with suppress(ReadtrackError):  # the error cannot be shown
                self.alive.process.detach()


def _request(job: Job) -> Job:
    """The job as requested, without the fields that are filled in at its start."""
    return replace(job, run_id="", created="", code="", edited="")
