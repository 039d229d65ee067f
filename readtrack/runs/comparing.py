"""`Run.compare` trains all arms the same way, collects their numbers in a table and judges claims on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

from readtrack.claims import FALL, SHUFFLED, UNTRAINED, AtLeast, Bound, Claim, Compared
from readtrack.runs.table import Metrics, Sweep, Table, Value, fall, items, number, related
from readtrack.runs.trial import Arm, Best, Keep, Level, Point, Runner, Trial, Work, Workshop

if TYPE_CHECKING:
    pass


A = TypeVar("A")
T = TypeVar("T")
Break: TypeAlias = "Mapping[str, Arm[Any]] | Callable[[Any], Any]"

_WIDER = 2  # number of points that may be added to a grid


@dataclass(frozen=True, slots=True)
class NoNull:
    """Why a comparison has no null run, such as "nothing is trained and only five problems are judged"."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seat(Generic[A]):
    """A row of the table: an arm at one level, as configured in this run.

    base      the arm's name in curves, which also salts its streams if `salted`
    share     fraction of the steps of its loops that it takes
    shuffled  whether it is trained on shuffled targets
    """

    row: str
    arm: Arm[A]
    base: str
    level: Level | None
    salted: bool
    share: float
    shuffled: bool = False

    @property
    def label(self) -> str:
        return self.base if self.level is None else f"{self.base}@{self.level}"

    def trial(self, shop: Workshop, point: Point, stage: str = "") -> Trial:
        """Begin an attempt, or its stage named `stage`."""
        work = Work(arm=self.label, level=self.level, point=point, stage=stage)
        at = Trial(shop, work, arm=self.base, salted=self.salted, share=self.share, shuffled=self.shuffled)
        at.before = at.stage(self.arm.before) if self.arm.before else None
        shop.works.append(work)
        at.start()
        return at


@dataclass(frozen=True, kw_only=True)
class Comparison(Generic[A, T]):
    """The arguments of `Run.compare`, which documents them."""

    claims: tuple[Claim, ...]
    arms: Mapping[str, Arm[A]]
    attempt: Callable[[Trial, A, Any], tuple[float, T]]
    read: Callable[[Trial, Sweep[T]], Metrics]
    grid: Sequence[Point] = ()
    what: str = "rate"
    score: str = "validation score"
    keep: Keep = "lowest"
    widen: bool = True
    again: bool = False
    levels: Mapping[str, Sequence[Level]] = field(default_factory=dict)
    yardsticks: Mapping[str, Arm[A]] = field(default_factory=dict)
    references: Mapping[str, Metrics] = field(default_factory=dict)
    derive: Callable[[Table], Mapping[str, Metrics]] | None = None
    breaks: Mapping[str, Break] = field(default_factory=dict)
    world: Any = None
    null: Literal["pipeline", "items"] | NoNull = "pipeline"
    unequal: Mapping[str, str] = field(default_factory=dict)
    judged_on: Literal["judge", "training"] = "judge"

    def carry_out(self, run: Runner) -> Table:
        """Try all arms that the run's claims need, and judge the claims."""
        self._check_wiring()
        wanted = [claim for claim in self.claims if run.wants(claim)]
        if not wanted:
            return Table()
        if run.null and isinstance(self.null, NoNull):
            for claim in wanted:
                run.leave_unjudged(claim, f"no null run: {self.null.why}")
            return Table()
        if run.null and self.null == "pipeline":
            return self._null_tables(run, wanted)
        for own, change in ((UNTRAINED, {"share": 0.0}), (SHUFFLED, {"shuffled": True})):
            if run.without(own.name):
                return self._changed_tables(run, wanted, change)
        given = self._broken(run)
        needed = self._needed(wanted)
        arms = [(name, arm) for name, arm in given.arms.items() if name in needed]
        return given._judged(
            run, wanted, [seat for name, arm in arms for seat in given._seats(run, name, arm)]
        )

    def _judged(self, run: Runner, claims: Sequence[Claim], seats: Sequence[_Seat[A]]) -> Table:
        table = self._fill(run, claims, seats)
        self._judge(run, claims, table)
        return table

    # Before anything is trained

    def _check_wiring(self) -> None:
        """Raise ValueError if a claim names an arm or a break that the comparison does not have."""
        rows = self._rows()
        for claim in self.claims:
            where = f"claim {claim.name!r}"
            for bound in _compared(claim):
                for row in bound.rows:
                    if row not in rows:
                        raise ValueError(f"{where}: no arm {row!r}; there are {_listed(rows)}")
            if self._has_null(claim) and claim.control_arm not in self.arms:
                raise ValueError(
                    f"{where}: control_arm {claim.control_arm!r} is not one of the arms {_listed(self.arms)}"
                )
            for one in claim.learned:
                if one.of and one.of.arm.partition("@")[0] != claim.control_arm:
                    raise ValueError(f"{where}: learned: {one.metric!r} is not about the control")
            for name in [one.name for one in claim.breaks]:
                if name not in (*self.breaks, UNTRAINED.name, SHUFFLED.name):
                    raise ValueError(f"{where}: the comparison has no break {name!r}")
        named = {one.name for claim in self.claims for one in claim.breaks}
        for name, change in self.breaks.items():
            if name not in named:
                raise ValueError(f"break {name!r}: no claim of the comparison names it")
            self._check_arms(f"break {name!r}", () if callable(change) else change)
        self._check_arms("levels", set(self.levels) - set(self.yardsticks))
        self._check_arms("unequal", self.unequal)
        if both := set(self.arms) & {*self.yardsticks, *self.references}:
            raise ValueError(f"{_listed(both)}: an arm cannot be a yardstick or a reference")

    def _has_null(self, claim: Claim) -> bool:
        return claim.kind == "measured" and not isinstance(self.null, NoNull)

    def _check_arms(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.arms:
                raise ValueError(f"{where}: no arm {name!r}; there are {_listed(self.arms)}")

    def _labels(self, name: str) -> dict[str, Level | None]:
        """The rows of an arm or a yardstick, with their levels."""
        levels = self.levels.get(name)
        return {name: None} if levels is None else {f"{name}@{level}": level for level in levels}

    def _rows(self) -> dict[str, str]:
        """All rows that a bound may name, each mapped to its arm, yardstick or reference."""
        rows = {row: name for name in (*self.arms, *self.yardsticks) for row in self._labels(name)}
        return rows | {name: name for name in self.references}

    def _named(self, claims: Iterable[Claim]) -> set[str]:
        """The arms, yardsticks and references in the claims' bounds.

        A bound on a derived metric may concern any of them.
        """
        rows = self._rows()
        found: set[str] = set()
        for claim in claims:
            if any(bound.of is None for bound in claim.bounds):
                return set(rows.values())
            found |= {rows[row] for bound in _compared(claim) for row in bound.rows}
        return found

    def _needed(self, wanted: Sequence[Claim]) -> set[str]:
        """All arms and yardsticks except those that occur only in other claims."""
        others = [claim for claim in self.claims if claim not in wanted]
        return {*self.arms, *self.yardsticks} - (self._named(others) - self._named(wanted))

    # The arms of a run

    def _broken(self, run: Runner) -> Comparison[A, T]:
        """The comparison with the run's break applied."""
        for name, change in self.breaks.items():
            if run.without(name):
                if callable(change):
                    return replace(self, world=change(self.world))
                return replace(self, arms={**self.arms, **change})
        return self

    def _null_tables(self, run: Runner, wanted: Sequence[Claim]) -> Table:
        """The joined tables of all controls. In each, all arms are copies of that control's pipeline."""
        tables = []
        for control, own, note in self._groups(wanted, lambda claim: claim.control_arm, "as {}"):
            seats = [
                seat
                for name in self.arms
                if name in self._needed(own)
                for seat in self._seats(run, name, self.arms[control], f"{name}{note}", salted=True)
            ]
            tables.append(self._judged(run, own, seats))
        return self._joined(tables)

    def _changed_tables(self, run: Runner, wanted: Sequence[Claim], change: Mapping[str, Any]) -> Table:
        """The joined table of all claims. Claims with the same arms of the paper share a table, in which
        these arms are changed.
        """
        tables = []
        for changed, own, note in self._groups(wanted, self._papers_arms, "without {}"):
            seats = [
                replace(seat, **change) if name in changed else seat
                for name, arm in self.arms.items()
                if name in self._needed(own)
                for seat in self._seats(run, name, arm, f"{name}{note}")
            ]
            tables.append(self._judged(run, own, seats))
        return self._joined(tables)

    def _groups(
        self, claims: Sequence[Claim], key: Callable[[Claim], Any], note: str
    ) -> Iterator[tuple[Any, list[Claim], str]]:
        """Claims grouped by `key`, each with the suffix of its arms' names (empty for the first group)."""
        for place, value in enumerate(dict.fromkeys(map(key, claims))):
            named = value if isinstance(value, str) else " and ".join(sorted(value))
            yield value, [c for c in claims if key(c) == value], f", {note.format(named)}" if place else ""

    def _joined(self, tables: Sequence[Table]) -> Table:
        """All rows in one table. If rows have the same name, the first one is kept."""
        whole = Table(world=self.world)
        for table in tables:
            whole.rows = {**table.rows, **whole.rows}
            whole.sweeps = {**table.sweeps, **whole.sweeps}
            whole.works += table.works
        return whole

    def _seats(
        self, run: Runner, name: str, arm: Arm[A], base: str = "", *, salted: bool = False
    ) -> list[_Seat[A]]:
        share = 1.0 if name in self.yardsticks else run.share_of_steps(name)
        return [
            _Seat(row=row, arm=arm, base=base or name, level=level, salted=salted, share=share)
            for row, level in self._labels(name).items()
        ]

    def _papers_arms(self, claim: Claim) -> frozenset[str]:
        """The paper's arms in the claim."""
        return frozenset(set(papers_arms(claim)) & self.arms.keys())

    # The table

    def _fill(self, run: Runner, wanted: Sequence[Claim], seats: Sequence[_Seat[A]]) -> Table:
        """The table of the arms in `seats`, with yardsticks, references and derived metrics."""
        needed = self._needed(wanted)
        yardsticks = [
            seat
            for name, arm in self.yardsticks.items()
            if name in needed
            for seat in self._seats(run, name, arm)
        ]
        shop = Workshop(run, self.world)
        table = Table(world=self.world, works=shop.works, stages=shop.stages)
        table.add(self.references)
        tries = [_Tries(self, shop, seat) for seat in (*seats, *yardsticks)]
        run.phase("train")  # an experiment may name other phases
        for tried in tries:
            for point in self.grid or (None,):
                tried.attempt(point)
        self._widen(tries)
        for tried in tries:
            self._read(table, tried)
        if self.derive:
            derived = self.derive(table)
            if strange := set(derived) - {"", *self._rows()}:
                raise ValueError(f"derive: no row {_listed(strange)}; there are {_listed(self._rows())}")
            table.add(derived)
        return table

    def _widen(self, tries: Sequence[_Tries[A, T]]) -> None:
        """If an arm's best value is at the edge of the grid, extend the grid by one value for all arms."""
        for _ in range(_WIDER if self.widen else 0):
            beyond = [point for tried in tries if (point := tried.beyond()) is not None]
            if not beyond:
                return
            for tried in tries:
                tried.attempt(beyond[0])

    def _read(self, table: Table, tried: _Tries[A, T]) -> None:
        """Measure an arm at its best point."""
        seat, point = tried.seat, None
        if self.grid:
            best = table.best[seat.row] = tried.best()
            tried.shop.run.metric(f"best {self.what}", best.value, arm=seat.label)
            point = best.result
        chosen = tried.attempt(point, again=True) if self.again else tried.outcomes[point]
        sweep = table.sweeps[seat.row] = Sweep(chosen, point, tried.outcomes)
        table.add({seat.row: self.read(seat.trial(tried.shop, point, stage="reading"), sweep)})
        if any(bound.of and bound.of.metric == FALL for claim in self.claims for bound in claim.learned):
            table.add({seat.row: {FALL: fall(tried.losses[point])}})

    # The claims

    def _judge(self, run: Runner, wanted: Sequence[Claim], table: Table) -> None:
        arm_of, unnamed = self._rows(), {*self.arms} - self._named(self.claims)
        for claim in wanted:
            if why := self._untaught(run, claim, table):
                run.leave_unjudged(claim, why)
                continue
            bounds = (*claim.bounds, *claim.guards, *claim.conditions)
            values = {bound.metric: self._worth(run, claim, bound, table) for bound in bounds}
            for metric in claim.shortcuts:
                values[metric] = self._number(claim, table, "", metric)
            rows = {row for bound in claim.bounds if bound.of for row in bound.of.rows}
            tuned = [best for row, best in table.best.items() if row in rows or arm_of[row] in unnamed]
            vague = [said for bound in claim.bounds if (said := self._vague(claim, bound, table))]
            run.claim(claim, values, tuned=tuned, vague=vague, about=self._about(run, claim, table))

    def _untaught(self, run: Runner, claim: Claim, table: Table) -> str:
        """Why a run with shuffled targets cannot judge a claim, or ""."""
        if not run.without(SHUFFLED.name):
            return ""
        works = [
            work
            for name in self._papers_arms(claim)
            for work in table.works
            if work.updates and work.arm.partition("@")[0].partition(", without ")[0] == name
        ]
        if hidden := next((work for work in works if work.shuffled < work.updates), None):
            where = hidden.stage or hidden.arm.partition(", without ")[0]
            return f"{where} has losses whose targets readtrack cannot shuffle"
        return "" if works else "the paper's arm is trained without targets"

    def _about(self, run: Runner, claim: Claim, table: Table) -> dict[str, Any]:
        """Facts about the comparison for its page.

        They are: what a null run redraws, the role of each row, and the pairs of compared arms that the run's
        break makes equal in every number.
        """
        papers = self._papers_arms(claim)
        roles = dict.fromkeys(self.arms, "other") | dict.fromkeys(papers, "paper")
        roles |= {claim.control_arm: "control"} if claim.control_arm else {}
        roles |= dict.fromkeys(self.yardsticks, "yardstick")
        roles |= {name: "reference" for name in self.references if name}
        about = {"null": self.null if isinstance(self.null, str) else "none", "arms": roles}
        compared = [bound.of for bound in claim.bounds if bound.of and bound.of.how]
        alike = []
        if any(run.without(name) for name in self.breaks):
            alike = [f"{of.arm} and {of.against}" for of in compared if table.same(of.arm, of.against)]
        return {**about, "alike": alike} if alike else about

    def _number(self, claim: Claim, table: Table, row: str, metric: str) -> float | AtLeast:
        return number(self._found(claim, table, row, metric))

    def _found(self, claim: Claim, table: Table, row: str, metric: str) -> Value:
        found = table.rows.get(row, {})
        if metric not in found:
            whose = f"arm {row!r}" if row else "the whole table"
            raise ValueError(f"claim {claim.name!r}: {whose} has no {metric!r}; there are {_listed(found)}")
        return found[metric]

    def _worth(self, run: Runner, claim: Claim, bound: Bound, table: Table) -> float | AtLeast:
        """The value of a bound's metric."""
        ours: float | AtLeast
        theirs: float | AtLeast
        of = bound.of
        if of is None:
            return self._number(claim, table, "", bound.metric)
        if run.null and self.null == "items" and bound in claim.bounds:
            ours, theirs = self._tossed(run, claim, of, table)
        else:
            ours = self._number(claim, table, of.arm, of.metric)
            theirs = self._number(claim, table, of.against, of.metric) if of.against else 0.0
        found = related(ours, theirs, of.how, bound.op)
        return _worse_by_threshold(bound, found) if run.null and bound in claim.bounds else found

    def _vague(self, claim: Claim, bound: Bound, table: Table) -> str:
        """Why too few items were judged, or "" if they suffice or the table has no items.

        The standard error within the run must be below a third of the distance between equal arms and the
        threshold, or the value must be more than three standard errors from the threshold.
        """
        of = bound.of
        if of is None or not (of.how or bound.direction is not None):
            return ""
        ours = items(self._found(claim, table, of.arm, of.metric))
        theirs = items(self._found(claim, table, of.against, of.metric)) if of.how else None
        if ours is None or (of.how and theirs is None):
            return ""
        if theirs is not None and of.how == "/":  # a ratio of means, to first order
            base = theirs.mean()
            ratio = ours.mean() / base
            ours = ratio + (ours - ratio * theirs) / base
        elif theirs is not None:
            ours = ours - theirs
        error = (ours.std() / math.sqrt(len(ours))).item()
        even = bound.direction if bound.direction is not None else 1.0 if of.how == "/" else 0.0
        allowed = abs(bound.threshold - even) / 3
        if error <= allowed or abs(ours.mean().item() - bound.threshold) > 3 * error:
            return ""
        return f"{bound.metric}: standard error {error:.2g}, but only {allowed:.2g} is allowed"

    def _tossed(self, run: Runner, claim: Claim, of: Compared, table: Table) -> tuple[float, float]:
        """Both arms' means after random swaps: a coin flip for each judged item decides whether to swap the
        arms' values.

        Items are on the first axis of the tensors, so values in one row share a coin.
        """
        import torch

        other = of.against or claim.control_arm
        pair = [self._found(claim, table, row, of.metric) for row in (of.arm, other)]
        if not all(isinstance(values, torch.Tensor) for values in pair):
            whose = f"{of.arm!r} and {other!r}"
            raise ValueError(f"claim {claim.name!r}: null='items' needs tensors of {of.metric!r} for {whose}")
        ours, theirs = (values.double().cpu() for values in pair if isinstance(values, torch.Tensor))
        coins = torch.rand(len(ours), generator=run.generator(f"coins, {claim.name}, {of.metric}, {other}"))
        heads = (coins < 0.5).view(-1, *[1] * (ours.dim() - 1))
        return ours.where(heads, theirs).mean().item(), theirs.where(heads, ours).mean().item()


@dataclass(slots=True)
class _Tries(Generic[A, T]):
    """The attempts of one arm at one level: scores and outcomes by point."""

    comparison: Comparison[A, T]
    shop: Workshop
    seat: _Seat[A]
    scores: dict[Point, float] = field(default_factory=dict)
    outcomes: dict[Point, T] = field(default_factory=dict)
    losses: dict[Point, list[float]] = field(default_factory=dict)

    def attempt(self, point: Point, *, again: bool = False) -> T:
        """Try the arm at `point`. Points that are not numbers are plotted by their position."""
        given = self.comparison
        at = self.seat.trial(self.shop, point)
        at.again = at.work.again = again
        name = f"{self.seat.row} as {at.name}, {given.what} {point!r}{', again' if again else ''}"
        at.work.score, outcome = at.kept(name, lambda: given.attempt(at, self.seat.arm.make, point))
        self.losses[point] = at.work.losses
        if again:
            return outcome
        if given.grid:
            place = point if isinstance(point, int | float) else len(self.scores)
            curve = f"{given.score} over {given.what}"
            self.shop.run.metric(curve, at.work.score, step=place, arm=self.seat.label)
        self.scores[point] = at.work.score
        self.outcomes[point] = outcome
        return outcome

    def best(self) -> Best[Point]:
        """The best point of the grid. `Best.result` is the point itself."""
        points: list[Any] = list(self.scores)
        numeric = all(isinstance(point, int | float) for point in points)
        places = dict(zip(points, points if numeric else range(len(points)), strict=True))
        if numeric:
            points.sort()
        given = self.comparison
        found = [(places[point], self.scores[point], point) for point in points]
        return Best.of(self.seat.label, given.what, found, given.keep)

    def beyond(self) -> float | None:
        """If the best value is at an edge of the grid, the next value beyond it, spaced by the last factor;
        else None.
        """
        grid = sorted(point for point in self.scores if isinstance(point, float) and point > 0)
        if len(grid) < 2:
            return None
        for edge, inner in ((grid[0], grid[1]), (grid[-1], grid[-2])):
            if self.best().value == edge:
                return float(f"{edge * edge / inner:.3g}")
        return None


def papers_arms(claim: Claim) -> list[str]:
    """The arm or reference that each bound describes, never the control."""
    found: list[str] = []
    for bound in claim.bounds:
        names = [row.partition("@")[0] for row in bound.of.rows] if bound.of else []
        found += [name for name in names if name != claim.control_arm][:1]
    return found


def _worse_by_threshold(bound: Bound, found: float | AtLeast) -> float | AtLeast:
    """A null run's value for an "as good as" bound, which equal arms satisfy by design.

    One arm counts as worse than the other by the threshold, so that the bound must not hold. Other bounds
    keep their value.
    """
    how = bound.of.how if bound.of else ""
    if isinstance(found, AtLeast) or not how or not bound.holds(1.0 if how == "/" else 0.0):
        return found
    worse = found * bound.threshold if how == "/" else found + bound.threshold
    # Two perfect copies would lie exactly on the threshold and pass.
    return math.nextafter(worse, -math.inf if bound.op in (">=", ">") else math.inf)


def _compared(claim: Claim) -> Iterator[Compared]:
    for bound in (*claim.bounds, *claim.guards, *claim.conditions):
        if bound.of:
            yield bound.of


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
