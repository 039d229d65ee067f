"""The app's running checks of exercises and their results, by paper."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from readtrack.errors import ReadtrackError
from readtrack.practising import codes, job, settle, to_judge, verdicts
from readtrack.present import practice as present
from readtrack.tui import news

if TYPE_CHECKING:
    from readtrack.practice.desk import Desk
    from readtrack.runs.events import ExerciseJudged
    from readtrack.tui.run_follower import RunFollower
    from readtrack.tui.shell import Shell


@dataclass(slots=True)
class PracticeDesk:
    """One paper's desk, with the running check and the verdicts of the last check.

    checked  modification time of the last checked file, in nanoseconds
    problem  the reason why the last check could not run, or ""
    shown    whether the practice screen is open and shows the results
    asked    whether the app has already offered to mark the paper as implemented
    """

    desk: Desk
    check: RunFollower | None = None
    verdicts: dict[str, ExerciseJudged] = field(default_factory=dict)
    checked: int = 0
    problem: str = ""
    shown: bool = False
    asked: bool = False


class PracticeController:
    """Starts checks as separate runs in parallel to the current run. They take seconds and leave no
    folder.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._benches: dict[str, PracticeDesk] = {}
        self.cancelled = ""  # the paper whose check ended with the app

    def bench(self, paper: str) -> PracticeDesk:
        """The paper's desk. Raises NotAvailableError without exercises, ReadtrackError if they are
        unreadable.
        """
        from readtrack.practice.desk import Desk

        library = self._shell.library
        if paper not in self._benches:
            known = library.catalog.papers.get(paper)
            desk = Desk(library.home, library.runnable()[paper], known.title if known else paper)
            self._benches[paper] = PracticeDesk(desk)
        return self._benches[paper]

    def check(self, bench: PracticeDesk) -> None:
        """Start a check of all exercises that are not skipped, unless one is running."""
        from readtrack.runs import launcher
        from readtrack.runs.record import Record
        from readtrack.tui.run_follower import RunFollower

        names = to_judge(bench.desk)
        if bench.check is not None or not names:
            return
        bench.checked, bench.problem = bench.desk.saved, ""
        written = codes(bench.desk, names)
        try:
            process = launcher.start(job(bench.desk, names), self._shell.library.home)
        except ReadtrackError as error:
            bench.problem = str(error)
        else:
            bench.check = RunFollower(process, Record.from_job(process.job))
            self._shell.run_worker(
                self._watch(bench, bench.check, written), group="practice", exit_on_error=False
            )
        self._shell.post(news.PracticeChanged(bench.desk.paper))

    async def _watch(self, bench: PracticeDesk, check: RunFollower, written: dict[str, str]) -> None:
        try:
            while not check.ended:
                await asyncio.sleep(check.period)
                if await check.look():
                    bench.verdicts |= {event["name"]: event for event in check.record.exercises}
                    self._shell.post(news.PracticeChanged(bench.desk.paper))
            self._judged(bench, check, written)
        except Exception as error:
            bench.problem = f"the check cannot be followed: {error}"
        finally:
            bench.check = None
            shutil.rmtree(check.folder, ignore_errors=True)
            self._shell.post(news.PracticeChanged(bench.desk.paper))

    def _judged(self, bench: PracticeDesk, check: RunFollower, written: dict[str, str]) -> None:
        """Record the verdicts, and report them in the status line if the practice screen is closed."""
        desk = bench.desk
        try:
            settle(desk, check.record, written)
        except ReadtrackError as error:
            bench.problem = str(error)
            if check.record.outcome == "cancelled":
                return
        else:
            bench.verdicts = {event["name"]: event for event in verdicts(check.record)}
        if not bench.shown:
            told = bench.problem or present.summary(one["outcome"] for one in bench.verdicts.values())
            self._shell.say((desk.paper, "bold"), f": {told}")

    def stop(self, bench: PracticeDesk) -> None:
        """Stop the check, with more force each time."""
        if bench.check is not None:
            bench.check.cancel()

    def leave(self) -> None:
        """Kill all checks when the app closes."""
        for paper, bench in self._benches.items():
            if (check := bench.check) is not None:
                self.cancelled = paper
                with suppress(OSError):  # the app is closing, so the error cannot be shown
                    check.kill()
                shutil.rmtree(check.folder, ignore_errors=True)
