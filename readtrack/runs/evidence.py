"""Which of a paper's runs count as evidence, and their verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readtrack.runs.job import Job
    from readtrack.runs.record import RunSummary

EXACT = "exact"  # an identity or a theorem that held; it could not fail, so it is not evidence
# A claim in one run on one seed is held or missed, as is an identity; the other words are for several seeds.
WORST_FIRST = (
    "not reproduced",
    "missed",
    "inconclusive",
    "weak",
    "not specific",
    "held",
    "reproduced",
    "not judged",
    EXACT,
)
_BUDGETS = ("smoke", "quick", "full")
_USUAL = {"smoke": 5.0, "quick": 60.0}  # seconds that a paper may take on two cores
_LATEST = 5  # number of runs for an estimate


def best(runs: Iterable[RunSummary]) -> RunSummary | None:
    """The most informative run: completed, with verdicts, largest budget, newest.

    Not the run with the best verdict, which repeated running would eventually produce. Null runs and breaks
    are not evidence for a paper, and runs on other data have separate verdicts.
    """
    completed = [run for run in runs if run.outcome == "completed" and not run.condition]
    return max(completed, key=_weight, default=None)


def _weight(run: RunSummary) -> tuple[bool, int, str, str]:
    judged = any(verdict not in ("not judged", EXACT) for _, verdict, _ in shown_claims(run))
    budget = _BUDGETS.index(run.budget) if run.budget in _BUDGETS else -1
    return judged, budget, run.started, run.run_id


def shown_verdict(verdict: str, kind: str) -> str:
    """`verdict` of a claim of that kind, or `exact` if it held and could not have failed."""
    return EXACT if kind != "measured" and verdict in ("held", "reproduced") else verdict


def shown_claims(run: RunSummary) -> list[tuple[str, str, str]]:
    """`run.claims` with their shown verdicts."""
    return [
        (name, shown_verdict(verdict, "identity" if name in (run.unmeasured or ()) else "measured"), ours)
        for name, verdict, ours in run.claims
    ]


def is_control(run: RunSummary) -> bool:
    """Whether the run must not show the paper's effect (`Job.control`)."""
    return run.condition.startswith(("null run", "break: "))


def overall(run: RunSummary) -> str:
    """The verdict on a whole run: its worst one.

    For a run without claims, and for a control (whose claims are expected to miss), it is the outcome.
    """
    if run.outcome != "completed" or is_control(run):
        return run.outcome or "running"
    verdicts = {verdict for _, verdict, _ in shown_claims(run)}
    return next((verdict for verdict in WORST_FIRST if verdict in verdicts), "completed")


def expected(job: Job, runs: Iterable[RunSummary]) -> float | None:
    """Expected seconds of the whole run: the median of the latest similar runs, else the budget's limit, else
    None.

    runs  the newest first
    """
    from statistics import median  # list commands start without it

    kind = (job.paper, job.budget, job.only or "", job.control, job.data)
    took = [
        run.duration
        for run in runs
        if run.outcome == "completed" and (run.paper, run.budget, run.only, is_control(run), run.data) == kind
    ]
    return median(took[:_LATEST]) if took else _USUAL.get(job.budget)
