"""A paper's claim as a rule that is written before the run and can fail.

A claim is a set of bounds on named metrics. One run on one seed gives `held`, `missed` or `not judged`.
Verdicts over several seeds (`reproduced`, `weak`, `inconclusive`, `not reproduced`) are in
`readtrack.verdicts`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from readtrack.bench import judge as timing
from readtrack.bench.judge import BoundEstimate, Growth, Speedup
from readtrack.signs import HOLDS, relation
from readtrack.text import format_number, quoted

Op = Literal[">=", "<=", "==", ">", "<"]
Kind = Literal["identity", "theorem", "measured"]
Held = Literal["held", "missed", "not judged"]
Role = Literal["coarse", "near miss", "rival"]
ReadIn = Literal["table", "text", "abstract", "secondary", "memory"]


@dataclass(frozen=True, slots=True)
class Compared:
    """The cells of a comparison's table (`Run.compare`) that a bound uses.

    arm      a row of the table; an arm at one of its levels is "LSTM@4"
    against  the row to compare with, or "" for a bound on the arm's own value
    how      "-" for the difference of the two, "/" for their ratio
    """

    metric: str
    arm: str
    against: str = ""
    how: Literal["", "-", "/"] = ""

    @property
    def rows(self) -> tuple[str, ...]:
        return (self.arm, self.against) if self.against else (self.arm,)


@dataclass(frozen=True, slots=True)
class Bound:
    """`metric op threshold`, for example `Bound("accuracy drop", "<=", 0.03)`.

    Bounds on the arms of a comparison are written with `at_least` or `at_most`.

    direction  the value that separates the paper's direction from the opposite one: a metric that misses the
               threshold and passes `direction` (with the same operator) is weak evidence. None: a missed
               threshold is never `weak`
    ratio      the metric is a ratio, so its logarithm is averaged over seeds
    of         the cells from which the metric is computed; None: the experiment computes it
    """

    metric: str
    op: Op
    threshold: float
    direction: float | None = None
    ratio: bool = False
    of: Compared | None = field(default=None, compare=False)

    def holds(self, ours: float) -> bool:
        return not math.isnan(ours) and HOLDS[self.op](ours, self.threshold)

    def value(self, values: Mapping[str, float], at_least: Collection[str] = ()) -> float:
        """The metric's value for this bound: NaN if it is missing.

        at_least  metrics whose values are lower bounds, which never satisfy an upper bound
        """
        if self.metric in at_least and self.op in ("<=", "<", "=="):
            return math.inf
        return values.get(self.metric, math.nan)

    def __str__(self) -> str:
        return f"{self.metric} {relation(self.op)} {format_number(self.threshold)}"

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self)
        return fields if self.of else {name: value for name, value in fields.items() if name != "of"}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Bound:
        if not isinstance(fields, Mapping):
            raise TypeError("a bound is a mapping")
        of = fields.get("of")
        return cls(**{**fields, "of": Compared(**of) if of else None})


def at_least(
    metric: str,
    arm: str,
    threshold: float,
    *,
    minus: str = "",
    over: str = "",
    toward: float | None = None,
    called: str = "",
) -> Bound:
    """A lower bound on an arm's metric, on its lead over another arm, or on the ratio of the two.

    minus, over  the other arm; at most one of them
    toward       `Bound.direction`
    called       the name of the bound's metric, if the default "accuracy, ours - theirs" is unclear

    Raises ValueError if the arms cannot be compared.
    """
    return _between(">=", metric, arm, threshold, minus, over, toward, called)


def at_most(
    metric: str,
    arm: str,
    threshold: float,
    *,
    minus: str = "",
    over: str = "",
    toward: float | None = None,
    called: str = "",
) -> Bound:
    """An upper bound; arguments as for `at_least`."""
    return _between("<=", metric, arm, threshold, minus, over, toward, called)


def _between(
    op: Op, metric: str, arm: str, threshold: float, minus: str, over: str, toward: float | None, called: str
) -> Bound:
    other, how = minus or over, "-" if minus else "/" if over else ""
    name = called or f"{metric}, {arm}{f' {how} {other}' if other else ''}"
    if minus and over:
        raise ValueError(f"bound {name!r}: takes minus or over, not both")
    if not arm or arm == other:
        raise ValueError(f"bound {name!r}: arm {arm!r} cannot be compared with {other!r}")
    return Bound(
        name, op, threshold, toward, ratio=bool(over), of=Compared(metric, arm, other, cast(Any, how))
    )


FALL = "fall of the training loss over the last fifth"


def flat(arm: str, within: float = 0.05) -> Bound:
    """A bound on an arm's training loss: it must have levelled off.

    Over the last fifth of its steps, the loss may decrease by at most `within` of its total decrease. For
    `Claim.learned`; `Run.compare` measures it on the losses of `Trial.descend`. A learning rate that decays
    to 0 flattens any curve; in that case, state the number of steps instead (`Claim.after_steps`).
    """
    return at_most(FALL, arm, within)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that the paper reports, and where it was read.

    text   the number, or the sentence in our words ("BLEU 28.4")
    where  the place in the paper ("table 2")
    read   table, text or abstract: in the paper; secondary: quoted by another source; memory: not looked up
    """

    text: str
    where: str = ""
    read: ReadIn = "memory"

    def __str__(self) -> str:
        sources = {"secondary": "quoted by others", "memory": "from memory"}
        notes = [note for note in (self.where, sources.get(self.read, "")) if note]
        return f"{self.text} ({', '.join(notes)})" if notes else self.text


@dataclass(frozen=True, slots=True)
class Break:
    """A change to the experiment that must make the claim fail.

    name        the argument of `readtrack run PAPER --break` ("no residual")
    takes_away  one sentence: what is left out, done wrongly, or used in place of the paper's method
    role        coarse: removes the whole idea. near miss: removes only what the paper calls essential. rival:
                replaces the paper's method with the strongest cheap method that sees the same information; if
                it passes the rule too, the claim is true here but not because of the idea
    """

    name: str
    takes_away: str
    role: Role = "coarse"


UNTRAINED = Break("untrained", "The paper's arm takes no training step.")
# `Run.compare` applies it. Every measured claim that compares arms has it without declaring it.
SHUFFLED = Break("shuffled targets", "The paper's arm is trained on targets in random order.")


def no_such_break(paper: str, name: str, there: Collection[str]) -> str:
    """The message for a break that none of the paper's claims declares."""
    return f"{paper} has no break {quoted(name)}. Its breaks: {', '.join(there) or 'none'}."


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A value that was not reached within the budget: a lower bound of the true value ("at least 400 steps").

    It passes a lower bound that `value` passes, and never an upper bound.
    """

    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A paper's claim, and the rule, written before the run, that decides whether it held here.

    name             short and unique within the paper, for tables
    sentence         the paper's claim in our words
    paper            the number that the paper reports, and where it was read
    rule             bounds that must all hold; a `Speedup` or a `Growth` is judged by the benchmark
    kind             identity: equal up to rounding, or a count; theorem: mathematically necessary; measured:
                     the result could have been different. Only measured claims count as evidence
    guards           bounds that hold by construction: checked in each run, listed separately, not counted
    control          description of the arm that the paper's arm is compared with
    control_arm      its name in the comparison; in a null run every arm is a copy of it
    control_reaches  bounds that the control must pass, or the comparison is not judged
    learned          bounds showing that the control has learned its task: its training score is near the
                     ceiling that a yardstick or a reference sets, or its curve is `flat`. Used like
                     control_reaches
    after_steps      N, if the control has not learned its task and the sentence says "after N steps": the
                     sign of the effect must be the same after 4 N (`readtrack.runs.trial.Trial.length`)
    breaks           changes that must make the claim fail; a measured claim names at least one
    no_rival         why no break is a rival: there is no cheaper method that sees the same information
    rival_variants   variants of the benchmark that are rivals, for a rule of bounds on time and memory only.
                     In place of the paper's variant, each must fail the rule
    shortcuts        metrics of methods that win without the idea (the mean, the last value, an n-gram)
    chosen_on        the small seeds on which set-up and thresholds were chosen
    deviations       all differences from the paper's own experiment
    headline         whether this is the claim of the paper's abstract; each paper has one such claim
    history          earlier rules, each with its verdict and the reason for the change
    seeded_as        the name from which the seeds are hashed, if the claim was renamed after its verdict
    """

    name: str
    sentence: str
    paper: Figure
    rule: tuple[Bound | Speedup | Growth, ...]
    kind: Kind = "measured"
    guards: tuple[Bound, ...] = ()
    control: str = ""
    control_reaches: tuple[Bound, ...] = ()
    breaks: tuple[Break, ...] = ()
    shortcuts: tuple[str, ...] = ()
    chosen_on: tuple[int, ...] = ()
    deviations: str = ""
    control_arm: str = ""
    no_rival: str = ""
    rival_variants: tuple[str, ...] = ()
    headline: bool = False
    history: tuple[str, ...] = ()
    learned: tuple[Bound, ...] = ()
    after_steps: int = 0
    seeded_as: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.paper, Figure):
            raise TypeError(f"claim {self.name!r}: paper must be a Figure, not {type(self.paper).__name__}")
        if not self.rule:
            raise TypeError(f"claim {self.name!r}: the rule must have at least one bound")
        compared = any(bound.of for bound in self.bounds)
        if compared and self.kind == "measured" and not self.control_arm:
            raise TypeError(f"claim {self.name!r}: compares arms but names no control_arm")
        if self.learned and self.after_steps:
            raise TypeError(f"claim {self.name!r}: set either learned or after_steps, not both")
        if self.rival_variants and self.bounds:
            raise TypeError(
                f"claim {self.name!r}: rival_variants need a rule of Speedup and Growth bounds only"
            )
        if self.control_arm and self.kind == "measured" and SHUFFLED not in self.breaks:
            object.__setattr__(self, "breaks", (*self.breaks, SHUFFLED))

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The bounds that the experiment decides."""
        return tuple(bound for bound in self.rule if isinstance(bound, Bound))

    @property
    def timed(self) -> tuple[Speedup | Growth, ...]:
        """The bounds that the benchmark decides."""
        return tuple(bound for bound in self.rule if not isinstance(bound, Bound))

    @property
    def conditions(self) -> tuple[Bound, ...]:
        """The bounds that the control must pass, or the comparison is not judged."""
        return (*self.control_reaches, *self.learned)

    @property
    def rivals(self) -> list[str]:
        """The names of the breaks that put a rival in place of the paper's arm."""
        return [one.name for one in self.breaks if one.role == "rival"]

    @property
    def metrics(self) -> list[str]:
        """The metrics that an experiment must provide for this claim."""
        bounds = (*self.bounds, *self.guards, *self.conditions)
        return list(dict.fromkeys([*(bound.metric for bound in bounds), *self.shortcuts]))

    def judge(self, values: Mapping[str, float], at_least: Collection[str] = ()) -> tuple[Held, str]:
        """The verdict on one set of numbers (metric name to value), and the reason unless the rule shows it.

        Bounds on the benchmark are left to `judge_timed`. A missing metric counts as NaN, which satisfies no
        bound; `at_least` as in `Bound.value`.
        """

        def failed(bounds: tuple[Bound, ...]) -> list[str]:
            return [str(bound) for bound in bounds if not bound.holds(bound.value(values, at_least))]

        if broken := failed(self.guards):
            return "missed", f"a guard failed: {'; '.join(broken)}"
        if short := failed(self.conditions):
            return "not judged", f"the control failed: {'; '.join(short)}"
        return ("missed" if failed(self.bounds) else "held"), ""

    def judge_timed(
        self, measurements: Sequence[Mapping[str, Any]]
    ) -> tuple[Held, str, dict[str, BoundEstimate]]:
        """The verdict on a benchmark's measurements, the obstacle if there is one, and the estimates."""
        found = {bound.metric: timing.judge(bound, measurements) for bound in self.timed}
        verdicts = {bound.metric: found[bound.metric].verdict(bound) for bound in self.timed}
        if "missed" in verdicts.values():
            return "missed", "", found
        for metric, verdict in verdicts.items():
            if verdict == "not judged":
                return (
                    verdict,
                    found[metric].obstacle or f"the interval of {metric} contains the threshold",
                    found,
                )
        return "held", "", found

    def to_json(self) -> dict[str, Any]:
        bounds = {
            name: [bound.to_json() for bound in getattr(self, name)]
            for name in ("rule", "guards", "control_reaches", "learned")
        }
        fields = {**asdict(self), **bounds}
        # Left out if they have their default value.
        rare = ("learned", "after_steps", "seeded_as", "rival_variants")
        return {name: value for name, value in fields.items() if value or name not in rare}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Claim:
        """Raises TypeError, KeyError or ValueError if `fields` are not a claim of this version."""
        known = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
        known["rule"] = tuple(
            timing.from_json(b) if "bound" in b else Bound.from_json(b) for b in fields["rule"]
        )
        for name in ("guards", "control_reaches", "learned"):
            known[name] = tuple(Bound.from_json(bound) for bound in fields.get(name, ()))
        for name in ("shortcuts", "chosen_on", "history", "rival_variants"):
            known[name] = tuple(fields.get(name, ()))
        claim = cls(**{**known, "paper": Figure(**fields["paper"])})
        # The breaks that the claim had when it was written.
        object.__setattr__(claim, "breaks", tuple(Break(**one) for one in fields["breaks"]))
        if not _fits(claim, cls):
            raise TypeError(f"claim {claim.name!r}: a field has the wrong type")
        return claim


@lru_cache(maxsize=16)
def _fields(kind: type) -> list[tuple[str, Any, Any, tuple[Any, ...]]]:
    return [(name, hint, get_origin(hint), get_args(hint)) for name, hint in get_type_hints(kind).items()]


def _fits(one: object, kind: type) -> bool:
    """Whether the fields of a dataclass have their declared types, at any depth, and finite floats."""
    return isinstance(one, kind) and all(
        _is(getattr(one, name), hint, origin, inside) for name, hint, origin, inside in _fields(kind)
    )


def _is(value: Any, hint: Any, origin: Any, inside: tuple[Any, ...]) -> bool:
    if origin is None:
        if hint is float:
            return type(value) in (int, float) and abs(value) <= sys.float_info.max
        return hint is Any or (
            _fits(value, cast(type, hint)) if is_dataclass(hint) else isinstance(value, hint)
        )
    if origin is Literal:
        return value in inside
    if origin is tuple:
        one = inside[0]
        return isinstance(value, tuple) and all(_is(v, one, get_origin(one), get_args(one)) for v in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
    return any(_is(value, one, get_origin(one), get_args(one)) for one in inside)  # a union
