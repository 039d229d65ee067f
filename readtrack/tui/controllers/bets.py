"""Takes bets before a run: reads the claim without importing the plugin into the app, places the bet, and
starts the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from readtrack import bets
from readtrack.errors import ReadtrackError
from readtrack.plugins.check import examine
from readtrack.present import bets as present
from readtrack.present.actions import key
from readtrack.runs.job import new_job

if TYPE_CHECKING:
    from readtrack.runs.job import Job
    from readtrack.tui.controllers.runs import RunController
    from readtrack.tui.screens.choose_bet import BetChoice
    from readtrack.tui.shell import Shell


class BetController:
    """`start` starts or queues a job. Call all methods except `_work` in the app's thread."""

    def __init__(self, shell: Shell, runs: RunController, start: Callable[[Job], None]) -> None:
        self._shell, self._runs, self._start = shell, runs, start
        self._reading = ""  # the paper whose claims are being read

    def bet(self, paper: str) -> None:
        """Ask for a bet and start the run. If there is already a bet on a current run of this paper, offer to
        withdraw it.
        """
        if self._reading:
            self._shell.say(f"Still reading the claims of {self._reading}.")
            return
        if (open_bet := self._open(paper)) is not None:
            self._ask_to_withdraw(open_bet)
            return
        self._reading = paper
        # A plain thread instead of a worker of the app, because the app's exit would wait for the child
        # process.
        threading.Thread(target=self._work, args=(paper,), daemon=True).start()

    def _open(self, paper: str) -> bets.Bet | None:
        alive = [self._runs.alive.record.run_id] if self._runs.alive is not None else []
        going = {*alive, *(job.run_id for job in self._runs.waiting)}
        found = bets.BetBook(self._shell.library.home).bets()
        return next((bet for bet in found if bet.open and bet.paper == paper and bet.run_id in going), None)

    def _work(self, paper: str) -> None:
        library, reason, on = self._shell.library, "", None
        try:
            claims = bets.known_claims(library, paper)
            if not claims:
                self._tell(self._shell.say, f"Reading the claims of {paper} takes a few seconds.")
                inspection = examine(paper, library.home)
                reason, claims = inspection.reason or "", inspection.claims
            on = bets.stake(claims)
        except Exception as error:  # shown to the reader, because the thread's error would be lost
            reason = str(error)
        self._tell(self._offer, paper, on, reason)

    def _tell(self, call: Any, *arguments: Any) -> None:
        if self._shell.is_running:
            self._shell.call_from_thread(call, *arguments)

    def _offer(self, paper: str, on: bets.Stake | None, reason: str) -> None:
        from readtrack.tui.screens.choose_bet import ChooseBet

        self._reading = ""
        if reason:
            next_step = f"run `readtrack plugins check {paper}` for details."
            self._shell.fail(f"read the claims of {paper}", reason, next_step)
        elif on is None:
            self._shell.say(present.nothing(paper))
        else:
            stake = on
            self._shell.ask(ChooseBet(paper, stake), lambda answer: self._place(paper, stake, answer))

    def _place(self, paper: str, on: bets.Stake, answer: BetChoice | None) -> None:
        if answer is None:
            return
        job = new_job(paper)
        try:
            bet = bets.BetBook(self._shell.library.home).place(
                self._shell.library, job, on, answer.arm, answer.sure
            )
        except ReadtrackError as error:
            self._shell.fail("record your bet", error, "run `readtrack doctor` to find the cause.")
            return
        self._start(job)
        self._shell.say(present.placed(bet), (f"   {key('bet')} withdraws it", "$muted"))

    def _ask_to_withdraw(self, bet: bets.Bet) -> None:
        from readtrack.tui.screens.ask import Choice, ChoiceDialog

        def chosen(answer: str | None) -> None:
            if answer != "w":
                return
            try:
                withdrawn = bets.BetBook(self._shell.library.home).withdraw(bet.run_id)
            except ReadtrackError as error:  # the run may have ended in the meantime
                self._shell.say(str(error))
            else:
                self._shell.say(present.withdrawn(withdrawn))

        answers = [Choice("w", "withdraw it", "the run continues"), Choice("x", "keep it")]
        self._shell.ask(ChoiceDialog(f"{present.placed(bet)} Withdraw it?", answers), chosen)
