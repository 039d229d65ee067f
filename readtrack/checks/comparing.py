"""Checks of the arguments of `Run.compare` in short runs at the quick budget.

- Every measured claim has a near miss, a rival and, if arms are trained, a run without training.
- A control has learned its task, or the claim states a number of steps, which can be increased.
- No leak: validation scores and losses do not depend on the test data.
- The test data are used: every number of a measured rule depends on them.
- Equal work: compared arms have the same training.
- Arms differ, and in a null run every arm has its own pipeline.
- Smoke executes every line and logs every metric that quick does; networks are evaluated in evaluation mode.

In these runs a loop has two steps (the first and the last) and a grid has two values (`experiment.Short`).
Runs with more steps use the smoke budget's sizes. The checks do not detect an idea that is weakened at equal
cost, a weak control, test data from other sources than `Run.data`, `Run.data_seed` and `Run.rows`, or results
that a plugin computed before the comparison and passes to its arms.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from readtrack.checks import watching
from readtrack.checks.experiment import Compared, Short, Watched, run_experiment
from readtrack.claims import FALL, UNTRAINED, Claim
from readtrack.procedure import MORE
from readtrack.runs.run import Part, Run
from readtrack.runs.table import Table, number, plain
from readtrack.runs.trial import Work


class OtherJudge(Short):
    """A short run with other test data of the same shapes."""

    redrawn = False

    def data(self, stream: str, part: Part) -> torch.Generator:
        if part != "judge":
            return super().data(stream, part)
        self.redrawn = True
        return self.generator(f"{stream}, drawn again")

    def rows(self, count: int, part: Part) -> torch.Tensor:
        if part != "judge":
            return super().rows(count, part)
        self.redrawn = True
        return torch.randint(count, (count,), generator=self.generator("rows, drawn again"))

    def data_seed(self, part: Part) -> int:
        self.redrawn |= part == "judge"
        return self.seed + 1_000_003 if part == "judge" else self.seed


class OwnStreams(Short):
    """A short null run that records streams and seeds of torch's global generator that its copies share."""

    shared: set[str]

    def compare(self, *claims: Any, **given: Any) -> Table:
        self.shared = getattr(self, "shared", set())
        self._comparing = True
        with _seeding(self._note_seed):
            table: Table = super().compare(*claims, **given)  # type: ignore[no-untyped-call]
        self._comparing = False
        return table

    def generator(self, stream: str) -> torch.Generator:
        caller = sys._getframe(1).f_globals["__name__"]
        if getattr(self, "_comparing", False) and not caller.startswith("readtrack.runs."):
            self.shared.add(f"run.generator({stream!r})")
        return super().generator(stream)

    def _note_seed(self, caller: str) -> None:
        if not caller.startswith("readtrack.runs."):
            self.shared.add("torch.manual_seed")


@contextmanager
def _seeding(note: Callable[[str], None]) -> Iterator[None]:
    """Call `note` with the name of each module that seeds torch's global generator."""
    seed = torch.manual_seed

    def noted(value: int) -> torch.Generator:
        note(sys._getframe(1).f_globals["__name__"])
        return seed(value)

    torch.manual_seed = noted  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.manual_seed = seed


@dataclass(frozen=True)
class ShortRuns:
    """The short runs for all checks: a plain run, one with other test data, a null run, one with smoke's
    steps and one with more steps. If no claim states a number of steps, the plain run serves as the last two.
    """

    plain: Short
    other: OtherJudge
    null: OwnStreams
    smoke: Watched
    longer: Watched

    @classmethod
    def of(
        cls, module: ModuleType, folder: Path, seed: int = 0, *, mutant: type[Run] | None = None
    ) -> ShortRuns:
        """Make the runs.

        mutant  changes the arguments of all runs (`readtrack.checks.mutants`)
        """

        networks: dict[str, Any] = {}

        def run(name: str, kind: type[Watched], budget: str = "quick", **options: Any) -> Any:
            shared = {} if kind is OtherJudge or budget == "smoke" else {"networks": networks}
            chosen = type(kind.__name__, (mutant, kind) if mutant else (kind,), shared)
            return run_experiment(module, folder / name, budget=budget, seed=seed, kind=chosen, **options)[1]

        plain = smoke = longer = run("short", Short, traced=True)
        if any(claim.after_steps for one, _ in getattr(plain, "compared", []) for claim in one.claims):
            smoke, longer = run("smoke", Watched, "smoke"), run("longer", Watched, "smoke", times=MORE)
        other = run("other-judge", OtherJudge)
        return cls(plain, other, run("short-null", OwnStreams, null=True), smoke, longer)

    @property
    def compared(self) -> list[Compared]:
        return getattr(self.plain, "compared", [])

    @property
    def pairs(self) -> Iterator[tuple[Compared, Table]]:
        """Each comparison of the plain run with its table from the run with other test data."""
        for compared, (_, other) in zip(self.compared, self.other.compared, strict=True):
            yield compared, other


# Breaks


def check_breaks(runs: ShortRuns) -> None:
    """Fail if a measured claim lacks a near miss, a rival (or the reason for having none), or `UNTRAINED`."""
    for comparison, _ in runs.compared:
        for claim in comparison.claims:
            if claim.kind != "measured":
                continue
            roles = {one.role for one in claim.breaks}
            assert "near miss" in roles, f"{claim.name}: no break is a near miss"
            assert ("rival" in roles) != bool(claim.no_rival), (
                f"{claim.name}: needs either a rival among its breaks or a reason in no_rival"
            )
            named = {one.name for one in claim.breaks}
            trained = comparison.null == "pipeline"
            assert not trained or UNTRAINED.name in named, f"{claim.name}: UNTRAINED is not among its breaks"


# Controls that have learned


def check_learned(runs: ShortRuns) -> None:
    """Fail if a bound of `Claim.learned` is loose (by more than a tenth of a reference or of the fall of the
    loss), if a sentence does not state its number of steps, or if a run of more steps lengthens no loop of a
    compared arm.
    """
    usual, longer = map(_tables, (runs.smoke, runs.longer))
    for comparison, _ in runs.compared:
        for claim in comparison.claims:
            for bound in claim.learned:
                near = bound.threshold <= 0.1 if bound.of and bound.of.metric == FALL else True
                if bound.of and bound.of.how == "/":
                    near = 0.9 <= bound.threshold <= 1.1
                assert near, f"{claim.name}: {bound} is far from what can be learned"
            if not claim.after_steps:
                continue
            said = re.search(rf"\b{claim.after_steps:,}\b", claim.sentence)
            assert said, f"{claim.name}: the sentence does not say: after {claim.after_steps:,} steps"
            for row in {row for pair in _pairs(claim) for row in pair} - comparison.references.keys():
                grown = _loops(longer[claim.name], row)
                assert any(MORE * one in grown for one in _loops(usual[claim.name], row)), (
                    f"{claim.name}: a run of {MORE} times the steps lengthens no loop of {row!r}; take the "
                    "number of steps from at.length"
                )


def _loops(table: Table, row: str) -> list[int]:
    """The lengths of all loops in a row's attempts and their stages."""
    works = [work for one in table.attempts(row) for work in (one, one.before) if work]
    return [total for work in works for total in work.loops]


# No leak


def check_no_leak(runs: ShortRuns) -> None:
    """Fail if a validation score or a loss depends on the test data, or if there is neither. Also fail if two
    parts of the data are drawn from the same stream, because they are then equal.
    """
    for stream, parts in runs.plain.parts.items():
        assert len(parts) == 1, (
            f"{' and '.join(sorted(parts))} draw the same numbers: run.data({stream!r}); give each part's "
            "stream another name"
        )
    before, after = (getattr(run, "losses", {}) for run in (runs.plain, runs.other))
    for metric, arm in before.keys() & after.keys():
        same = repr(before[metric, arm]) == repr(after[metric, arm])
        assert same, f"the test data change {metric!r} of {arm!r}"
    for (comparison, table), other in runs.pairs:
        names = [claim.name for claim in comparison.claims if claim.kind == "measured"]
        values = 0
        attempts = ([w for w in one.works if not w.stage] for one in (table, other))
        for was, now in zip(*attempts, strict=True):
            values += len(was.losses)
            if comparison.grid:
                values += 1
                same = repr(was.score) == repr(now.score)
                assert same, f"{was.arm}: the test data change the score at {was.point}"
        trained = comparison.null == "pipeline" and any(work.taken for work in table.works)
        assert values or not (names and trained), f"{', '.join(names)}: no score and no loss was compared"


# The test data are used


def check_judge_heard(runs: ShortRuns) -> None:
    """Fail if a bound of a measured rule is computed from numbers that ignore the test data.

    A number that is 0 or 1 for every judged item in both runs may be at its limit and is ignored.
    """
    judged = [pair for pair in runs.pairs if pair[0][0].judged_on == "judge"]
    measured = any(claim.kind == "measured" for (one, _), _ in judged for claim in one.claims)
    assert runs.other.redrawn or not measured, "run.data and data_seed draw nothing for 'judge'"
    for (comparison, table), other in judged:
        for claim in comparison.claims:
            for name, cells in _cells(claim) if claim.kind == "measured" else ():
                was, now = ([one.rows[row][metric] for row, metric in cells] for one in (table, other))
                limits = all(number(value) in (0.0, 1.0) for value in (*was, *now))
                same = list(map(plain, was)) == list(map(plain, now))
                assert not same or limits, f"{claim.name}: {name!r} ignores the test data"


def _cells(claim: Claim) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each bound of the rule, with its cells of the table."""
    for bound in claim.bounds:
        of = bound.of
        yield bound.metric, [(row, of.metric) for row in of.rows] if of else [("", bound.metric)]


# Equal work


_LAST = " at the last step"  # of a short run, which has the first and the last step of each loop


def check_equal_work(runs: ShortRuns) -> None:
    """Fail if two compared arms train differently and `unequal` does not name the difference."""
    for comparison, table in runs.compared:
        for claim in comparison.claims:
            for ours, theirs in _pairs(claim):
                if {ours, theirs} & comparison.references.keys():
                    continue  # the arm was not trained
                stated = " ".join(comparison.unequal.get(_arm(row), "") for row in (ours, theirs))
                for what, mine, other in unequal(table.attempts(ours), table.attempts(theirs)):
                    if _is_stated(what.removeprefix("their "), stated):
                        continue
                    found = f"{what}: {mine} and {other}"
                    raise AssertionError(f"{claim.name}: {ours!r} and {theirs!r} differ in {found}")


def _is_stated(what: str, stated: str) -> bool:
    """A statement about the last step only does not cover learning rates that differ from the first on."""
    if not what.endswith(_LAST):
        stated = stated.replace(what + _LAST, "")
    return what.removesuffix(_LAST) in stated


def unequal(ours: Sequence[Work], theirs: Sequence[Work]) -> Iterator[tuple[str, object, object]]:
    """The differences between the attempts of two arms, as names and pairs of values."""
    my_grid, other_grid = ([work.point for work in works if not work.again] for works in (ours, theirs))
    if my_grid != other_grid:
        yield "the grid", my_grid, other_grid
        return
    ratios = _ratios(ours, theirs)
    if any(not math.isclose(ratio, ratios[0], rel_tol=1e-6) for ratio in ratios):
        yield "how their learning rates follow the grid", ratios, ratios[0]
    for mine, other in zip(ours, theirs, strict=True):
        for (what, a), (_, b) in zip(_facts(mine), _facts(other), strict=True):
            if a == b:
                continue
            if what != "their learning rates":
                yield what, a, b
            elif mine.point == other.point:
                yield what + _LAST * (mine.rates[:1] == other.rates[:1]), a, b
        if mine.before and other.before:
            for (what, a), (_, b) in zip(_facts(mine.before)[:3], _facts(other.before)[:3], strict=True):
                if a != b:
                    yield what.replace("their", "their stages'"), a, b
        for stream in mine.drawn.keys() & other.drawn.keys():
            if not torch.equal(mine.drawn[stream].get_state(), other.drawn[stream].get_state()):
                yield "how much they draw", stream, stream


def _ratios(ours: Sequence[Work], theirs: Sequence[Work]) -> list[float]:
    """The ratio of the two arms' learning rates at each point of the grid."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if not a.again and a.rates and b.rates]
    return [a.rates[0] / b.rates[0] if b.rates[0] else math.nan for a, b in pairs]


def _facts(work: Work) -> list[tuple[str, object]]:
    return [
        ("their loop lengths", work.loops),
        ("their step counts", work.taken),
        ("their updates", work.updates),
        ("their optimisers", work.how),
        ("their learning rates", work.rates),
    ]


# Arms differ, and have separate pipelines in null runs


def check_arms_differ(runs: ShortRuns, *others: Watched) -> None:
    """Fail if two compared arms are the same in the plain run, the longer run and the runs `others`.

    Two optimisers may first differ in their second update. Then all losses of a run of two steps are equal.
    """
    tables = [_tables(run) for run in (runs.plain, runs.longer, *others)]
    for comparison, _ in runs.compared:
        for claim in comparison.claims:
            found = [table[claim.name] for table in tables]
            for ours, theirs in _pairs(claim):
                if {ours, theirs} & comparison.references.keys():
                    continue
                same = all(table.same(ours, theirs) for table in found if {ours, theirs} <= table.rows.keys())
                assert not same, (
                    f"{claim.name}: {ours!r} and {theirs!r} are equal in every number of a run of two steps "
                    "and of a smoke run. If they differ only later, judge a number that is computed after "
                    "the last step, or give the smoke run more steps"
                )


def check_null(runs: ShortRuns) -> None:
    """Fail if the copies of a null run share weights, streams or results, or do unequal work."""
    compared: list[Compared] = getattr(runs.null, "compared", [])
    for comparison, table in compared:
        if comparison.null != "pipeline":
            continue
        shared = ", ".join(sorted(runs.null.shared))
        assert not shared, f"null run: all arms share {shared}; take Trial.generator, or Run.data for data"
        for claim in comparison.claims:
            for ours, theirs in _pairs(claim):
                if _arm(ours) in comparison.arms and _arm(theirs) in comparison.arms:
                    _check_copies(claim, table, ours, theirs)


def _check_copies(claim: Claim, table: Table, ours: str, theirs: str) -> None:
    where = f"{claim.name}: in a null run {ours!r} and {theirs!r}"
    mine, other = (_copies(table, row, claim) for row in (ours, theirs))
    labels = mine[0].arm, other[0].arm
    assert not table.same(ours, theirs, labels), f"{where} are equal in every number"
    for a, b in zip(mine, other, strict=True):
        assert not a.losses or a.losses != b.losses, f"{where} have equal losses"
        assert not (a.before and b.before) or a.before.loops == b.before.loops, f"{where} share a stage"


# Smoke differs from quick only in numbers, and networks are evaluated in evaluation mode


def check_smoke_reaches(runs: ShortRuns, smoke: Watched, module: ModuleType) -> None:
    """Fail if the short quick run executes a line or logs a metric that smoke does not, or if the plugin
    reads the budget's name. Numbers in the names of metrics may differ.
    """
    named = ", ".join(watching.reads_budget(module))
    assert not named, f"{named} reads the budget's name; take numbers from run.pick"
    missing = watching.only_in(runs.plain.lines, smoke.lines)
    assert not missing, f"smoke does not reach {len(missing)} lines that quick reaches: {missing[0]}"
    metrics: set[str] = getattr(runs.plain, "metrics", set()) - getattr(smoke, "metrics", set())
    assert not metrics, f"smoke does not log {', '.join(sorted(metrics))}"


def check_modes(runs: ShortRuns) -> None:
    """Fail if a network is evaluated with dropout or with batch statistics.

    A network counts as evaluated if it runs without gradients outside a training loop or in early stopping.
    """
    found = ", ".join(sorted(runs.plain.modes.found))
    assert not found, f"evaluated in training mode: {found}; evaluate within run.evaluating(network)"


# Shared helpers


def _pairs(claim: Claim) -> Iterator[tuple[str, str]]:
    """The pairs of rows that a measured claim compares. A bound with one row is paired with the control."""
    if claim.kind != "measured":
        return
    for bound in claim.bounds:
        if bound.of:
            name, at, level = bound.of.arm.partition("@")
            if bound.of.against or name != claim.control_arm:
                yield bound.of.arm, bound.of.against or f"{claim.control_arm}{at}{level}"


def _tables(run: Watched) -> dict[str, Table]:
    """The table of each claim's comparison."""
    return {claim.name: table for one, table in getattr(run, "compared", []) for claim in one.claims}


def _arm(row: str) -> str:
    return row.partition("@")[0]


def _copies(table: Table, row: str, claim: Claim) -> list[Work]:
    """The attempts in a null run's row that are copies of the claim's control."""
    name, at, level = row.partition("@")
    return table.attempts(f"{name}, as {claim.control_arm}{at}{level}") or table.attempts(row)
