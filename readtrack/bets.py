"""Bets on which arm of a comparison wins, made before the run, in the append-only `bets.jsonl` of the home.

A bet concerns a paper's headline claim. The paper's arm wins if the run's verdict on the claim is `held`, and
the control wins if it is `missed`. A bet on a run that does not judge the claim does not count.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from readtrack import regular
from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.text import one_line, quoted

if TYPE_CHECKING:
    from readtrack.claims import Claim
    from readtrack.home import Home
    from readtrack.library import Library
    from readtrack.runs.job import Job
    from readtrack.runs.record import RunSummary

ENOUGH = 10  # minimum number of bets for statistics
LEAST, MOST = 50, 99  # percent
_LARGEST = 16 << 20  # size limit of the file in bytes
_BINS = ((50, 59), (60, 69), (70, 79), (80, 89), (90, 99))  # percent
_WINNERS = {"held": True, "missed": False}  # a claim's verdict: whether the paper's arm wins


class Stake(NamedTuple):
    """The subject of a bet: a claim, the paper's arm and the control, and the rule that decides the winner.

    described  the claim's description of the control, or ""
    """

    claim: str
    ours: str
    control: str
    rule: str
    sentence: str
    described: str = ""


@dataclass(frozen=True, slots=True)
class Bet:
    """One bet. All texts are safe to print.

    on_paper  whether the arm is the paper's
    sure      confidence in percent, 50 to 99
    topic     the paper's section in the list, or ""
    winner    the arm that won, or "" while the run is in progress
    void      why the bet does not count ("withdrawn", "not judged"), or ""
    """

    run_id: str
    paper: str
    claim: str
    arm: str
    against: str
    on_paper: bool
    sure: int
    topic: str
    at: str
    winner: str = ""
    void: str = ""

    @property
    def open(self) -> bool:
        return not (self.winner or self.void)

    @property
    def right(self) -> bool:
        """Whether the arm won, if the bet counts."""
        return self.winner == self.arm

    @property
    def counts(self) -> bool:
        return bool(self.winner) and not self.void


def stake(claims: Iterable[Claim]) -> Stake | None:
    """The stake on the headline claim, else the first that compares arms, else the first measured one.

    None if no claim is measured. If a claim does not name its arms, they are called "the paper's" and "the
    control".
    """
    measured = [claim for claim in claims if claim.kind == "measured"]
    if not measured:
        return None
    claim = min(measured, key=lambda one: (not one.headline, not one.control_arm))
    cells = sorted((b.of for b in claim.bounds if b.of is not None), key=lambda of: not of.against)
    ours = cells[0].arm if cells else "the paper's"
    control = (cells[0].against if cells else "") or claim.control_arm or "the control"
    rule = "; ".join(map(str, claim.rule))
    texts = (claim.name, ours, control, rule, claim.sentence, claim.control)
    return Stake(*(one_line(part) for part in texts))


def known_claims(library: Library, paper: str) -> tuple[Claim, ...]:
    """The claims that the newest run stated, or (). Does not import the plugin."""
    from readtrack.claims import Claim
    from readtrack.runs.store import load

    for run in library.results(paper)[:1]:
        record = load(library.home.runs / run.run_id)
        try:
            return tuple(Claim.from_json(one) for one in record.stated)
        except (TypeError, KeyError, ValueError):
            return ()
    return ()


def parse(words: str, on: Stake) -> tuple[str, int]:
    """Parse `8 heads:80` or `paper:80` into arm and percent. Raises ReadtrackError."""
    found = re.fullmatch(r"(.+?)\s*[:=]\s*(\d+)\s*%?", words.strip())
    sure = int(found[2]) if found else 0
    if found is None or not LEAST <= sure <= MOST:
        raise ReadtrackError(
            f"a bet is ARM:PERCENT with {LEAST} to {MOST} percent, for example {on.ours!r}:80, "
            f"not {quoted(words)}."
        )
    arms = {on.ours: on.ours, on.control: on.control, "paper": on.ours, "control": on.control}
    by_name = {name.casefold(): arm for name, arm in arms.items()}
    if found[1].casefold() not in by_name:
        raise ReadtrackError(f"there is no arm {quoted(found[1])}. Bet on {on.ours!r} or {on.control!r}.")
    return by_name[found[1].casefold()], sure


def refuse_unjudged(job: Job) -> None:
    """Raises NotAvailableError for a run that judges no measured claim."""
    why = (
        "a run of the smoke budget judges no measured claim"
        if job.budget == "smoke"
        else "in a null run both arms are the control"
        if job.null
        else "the claim needs the experiment"
        if job.only in ("benchmark", "exercises")
        else ""
    )
    if why:
        raise NotAvailableError(f"there is nothing to bet on: {why}.")


def topic(library: Library, paper: str) -> str:
    """The title of the first section of the list that contains the paper."""
    from readtrack.reading_list.catalog import Row, Section

    title = ""
    for _, item in library.catalog.walk():
        if isinstance(item, Section):
            title = item.title
        elif isinstance(item, Row) and paper in item.papers:
            return one_line(title)
    return ""


class BetBook:
    """The file of bets. Reading never fails; invalid lines are skipped."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.root / "bets.jsonl"

    def bets(self) -> list[Bet]:
        """All bets, oldest first."""
        try:
            text = regular.read_bytes(self._path, _LARGEST).decode("utf-8", "replace")
        except OSError:
            return []
        found: dict[str, Bet] = {}
        for line in text.splitlines():
            try:
                _take(found, json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
        return list(found.values())

    def of(self, run_id: str) -> Bet | None:
        return next((one for one in self.bets() if one.run_id == run_id), None)

    def place(self, library: Library, job: Job, on: Stake, arm: str, sure: int) -> Bet:
        """Place a bet. Raises ReadtrackError if it cannot be written, NotAvailableError if the run will not
        judge the claim.
        """
        refuse_unjudged(job)
        self._add(
            job.run_id,
            "bet",
            paper=job.paper,
            claim=on.claim,
            arm=arm,
            against=on.control if arm == on.ours else on.ours,
            on_paper=arm == on.ours,
            sure=sure,
            topic=topic(library, job.paper),
        )
        found = self.of(job.run_id)
        assert found is not None  # it was just written
        return found

    def withdraw(self, run_id: str) -> Bet:
        """Withdraw a bet. Raises NotAvailableError if there is no open bet on the run."""
        found = self.of(run_id)
        if found is None or not found.open:
            raise NotAvailableError("there is no open bet to withdraw.")
        self._add(run_id, "withdrawn")
        return replace(found, void="withdrawn")

    def settle(self, runs: Iterable[RunSummary], waiting: Iterable[str] | None = None) -> list[Bet]:
        """Decide the open bets on runs that have ended and return these bets.

        waiting  ids of runs that have not begun. If given, a bet on a run that is neither waiting nor
                 recorded is void
        """
        ended = {run.run_id: run for run in runs}
        known = None if waiting is None else {*waiting, *ended}
        settled = []
        for bet in self.bets():
            run = ended.get(bet.run_id)
            if not bet.open or (run is not None and run.outcome is None):
                continue
            if run is not None:
                verdicts = {name: verdict for name, verdict, _ in run.claims}
                whole = run.outcome == "completed"
                verdict = verdicts.get(bet.claim, "not judged") if whole else "the run did not complete"
                self._add(bet.run_id, "settled", verdict=verdict)
            elif known is not None and bet.run_id not in known:
                self._add(bet.run_id, "settled", verdict="the run is gone")
            else:
                continue
            settled.append(bet.run_id)
        return [bet for bet in self.bets() if bet.run_id in settled]

    def _add(self, run_id: str, did: str, **more: Any) -> None:
        self._home.ensure()
        at = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"at": at, "did": did, "run": run_id, **more}, ensure_ascii=False)
        with self._home.holding("bets"):
            try:
                descriptor = regular.descriptor(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                with os.fdopen(descriptor, "ab") as file:
                    file.write(line.encode() + b"\n")
            except OSError as error:
                raise ReadtrackError(f"Could not write {self._path}: {error.strerror}.") from error


def settle_all(library: Library) -> list[Bet]:
    """Decide the bets on all runs that have ended, wherever they were started."""
    from readtrack.runs.queue import Queue

    waiting = [job.run_id for job in Queue(library.home).jobs()]
    return BetBook(library.home).settle(library.results(), waiting)


def _take(found: dict[str, Bet], entry: dict[str, Any]) -> None:
    """Apply one line of the file to the earlier bets. Only the first entry that ends a bet counts."""
    run_id, did = one_line(entry["run"]), entry["did"]
    if did == "bet" and run_id not in found:
        texts = {name: one_line(entry[name]) for name in ("paper", "claim", "arm", "against", "topic", "at")}
        sure = entry["sure"]
        if type(sure) is int and LEAST <= sure <= MOST:
            found[run_id] = Bet(run_id, sure=sure, on_paper=entry["on_paper"] is True, **texts)
    elif did in ("withdrawn", "settled") and (bet := found[run_id]).open:
        verdict = one_line(entry.get("verdict", did))
        holds = _WINNERS.get(verdict)
        won = "" if holds is None else bet.arm if holds == bet.on_paper else bet.against
        found[run_id] = replace(bet, winner=won, void="" if won else verdict)


class SureBin(NamedTuple):
    """Bets of similar confidence. said: mean stated percentage; right: how many of the `bets` won."""

    least: int
    most: int
    bets: int
    right: int
    said: float


class Calibration(NamedTuple):
    """Calibration of bets. missing: number of further bets needed before other statistics may be shown.

    brier  mean squared difference between stated probability and outcome. 0 is perfect; always stating 50 %
           gives 0.25
    """

    topic: str
    bets: int
    missing: int
    right: float
    said: float
    brier: float
    bins: tuple[SureBin, ...]


def calibration(bets: Iterable[Bet], topic: str = "") -> Calibration:
    """Calibration of the bets that count."""
    found = [bet for bet in bets if bet.counts]
    count = len(found)
    if not found:
        return Calibration(topic, 0, ENOUGH, 0.0, 0.0, 0.0, ())
    return Calibration(
        topic,
        count,
        max(0, ENOUGH - count),
        sum(bet.right for bet in found) / count,
        sum(bet.sure for bet in found) / count,
        sum((bet.sure / 100 - bet.right) ** 2 for bet in found) / count,
        tuple(_bins(found)),
    )


def by_topic(bets: Sequence[Bet]) -> list[Calibration]:
    """The calibration for each section with bets that count, those with the most bets first."""
    counting = [bet for bet in bets if bet.counts]
    topics = dict.fromkeys(bet.topic for bet in counting)
    found = [calibration([bet for bet in counting if bet.topic == topic], topic) for topic in topics]
    return sorted(found, key=lambda one: -one.bets)


def _bins(found: Sequence[Bet]) -> Iterator[SureBin]:
    for least, most in _BINS:
        inside = [bet for bet in found if least <= bet.sure <= most]
        if inside:
            said = sum(bet.sure for bet in inside) / len(inside)
            yield SureBin(least, most, len(inside), sum(bet.right for bet in inside), said)
