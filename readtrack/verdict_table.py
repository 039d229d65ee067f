"""The table of verdicts, shipped as JSON. `readtrack.verdict_pages` makes pages from it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import stdev
from typing import Any, Literal, TypeVar

from readtrack.bench.judge import Growth, Speedup
from readtrack.claims import Bound, Claim, Role
from readtrack.effects import Effect
from readtrack.procedure import PROCEDURE, STEADY
from readtrack.text import counted, format_number
from readtrack.verdicts import Judged, NullKind, Verdict

_ORDER: tuple[Verdict, ...] = (
    "reproduced",
    "not specific",
    "weak",
    "inconclusive",
    "not reproduced",
    "not judged",
    "held",
    "missed",
)
_T = TypeVar("_T")
SCHEMA = 2  # docs/verdicts.schema.json


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """A claim's verdict over seeds, and its outcome in null runs, and with each of its breaks.

    ours       the numbers of the runs, as text
    values     each metric's values by seed; {} in tables without them
    otherwise  the probability that another verification gives another verdict; None if unknown
    null       the verdict of the null run, or None
    breaks     the verdict with each break, by name
    effects    threshold and result of each bound; () in tables without them
    numbers    the numbers of null runs ("null run") and of each break, as text
    runs       the run of each seed, () in tables without them
    seconds    duration of each of these runs
    procedure  number of the procedure that judged (`readtrack.procedure.PROCEDURE`)
    null_kind  what the null runs redraw (`Judged.null_kind`), or ""
    deviations by metric: standard deviation over plain and over null runs, of logarithms for a ratio; for
    bounds that have both
    alike      breaks that make arms equal in every number, and these arms; in effect these are null runs

    The other fields are those of `Judged`.
    """

    paper: str
    claim: Claim
    verdict: Verdict
    why: str
    held: int
    seeds: tuple[int, ...]
    ours: str
    edges: tuple[str, ...]
    otherwise: float | None
    null: Verdict | None
    breaks: Mapping[str, Verdict]
    values: Mapping[str, Sequence[float | None]]
    effects: tuple[Effect, ...] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()
    procedure: int = PROCEDURE
    null_kind: NullKind | Literal[""] = ""
    deviations: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    guards: Mapping[str, str] = field(default_factory=dict)
    alike: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        judged: Judged,
        null: Judged | Verdict | None = None,
        breaks: Mapping[str, Verdict] | None = None,
    ) -> VerdictRow:
        """A row without `numbers`, `runs` and `seconds`, which do not belong to the claim.

        null  the outcome of the null runs, or only their verdict
        """
        judged = judged.beside(breaks or {})
        return cls(
            paper=judged.paper,
            claim=judged.claim,
            verdict=judged.verdict,
            why=judged.why,
            held=judged.held,
            seeds=judged.seeds,
            ours=judged.ours,
            edges=judged.edges,
            otherwise=judged.otherwise(),
            null=null.verdict if isinstance(null, Judged) else null,
            breaks=breaks or {},
            values=judged.values,
            effects=judged.effects,
            null_kind=null.null_kind if isinstance(null, Judged) else "",
            deviations=_deviations(judged, null) if isinstance(null, Judged) else {},
            guards=judged.guards,
        )

    def tried(self, *roles: Role) -> dict[str, Verdict]:
        """The verdict with each break of one of these roles, without breaks that are in effect null runs."""
        named = {one.name: one.role for one in self.claim.breaks}
        return {
            name: said
            for name, said in self.breaks.items()
            if named.get(name, "coarse") in roles and name not in self.alike
        }

    @property
    def held_seeds(self) -> str:
        """`4 of 5 seeds`; "" if only the benchmark judges the claim, which does not run once per seed."""
        only_timed = self.claim.timed and not self.claim.bounds
        return "" if only_timed else f"{self.held} of {counted(len(self.seeds), 'seed')}"

    @property
    def effect(self) -> Effect | None:
        """The main effect: the first that compares arms, or the first."""
        alone = {bound.metric for bound in self.claim.bounds if not (bound.of and bound.of.against)}
        counted = [one for one in self.effects if str(one) not in self.guards]
        scaled = [one for one in counted if one.even is not None]
        comparing = [one for one in scaled if one.metric not in alone]
        return next(iter([*comparing, *scaled, *counted, *self.effects]), None)

    @property
    def rival_variants(self) -> str:
        """The rivals in the benchmark with their numbers, or their names if there are no numbers."""
        names = self.claim.rival_variants
        numbers = [one for one in self.ours.split("; ") if any(f" of {name}" in one for name in names)]
        return "; ".join(numbers or names)

    @property
    def fell_first(self) -> str:
        """Why breaks have no outcome although null runs or rivals do, or ""."""
        missing = [one.name for one in self.claim.breaks if one.name not in self.breaks]
        if not missing or self.verdict in ("reproduced", "weak") or self.claim.kind != "measured":
            return ""
        unknown = [name for name in self.claim.rivals if self.breaks.get(name) == "not judged"]
        if self.verdict == "not specific" or unknown:
            names = ", ".join(missing)
            why = "passes the rule" if self.verdict == "not specific" else "could not be judged"
            return f"{names}: not run; a rival {why}, so they cannot change the verdict"
        if self.null is None or self.breaks:
            return ""
        return f"not run, because the claim is {self.verdict} without them"

    @property
    def earlier(self) -> bool:
        """Whether a measured claim was judged by an earlier procedure."""
        return self.claim.kind == "measured" and self.procedure != PROCEDURE

    def to_json(self) -> dict[str, Any]:
        late = {"null_kind", "deviations", "guards", "alike"}  # left out if empty
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in fields.items() if value or name not in late} | {
            "claim": self.claim.to_json(),
            "effects": [one._asdict() for one in self.effects],
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> VerdictRow:
        fields = {"values": {}, "procedure": 1, **fields}  # missing in tables of the first version
        tuples = {name: tuple(fields.get(name, ())) for name in ("seeds", "edges", "runs", "seconds")}
        effects = tuple(Effect(**one) for one in fields.get("effects", ()))
        claim = Claim.from_json(fields["claim"])
        pairs = {metric: (one[0], one[1]) for metric, one in fields.get("deviations", {}).items()}
        return cls(**{**fields, **tuples, "effects": effects, "claim": claim, "deviations": pairs})

    @property
    def narrow(self) -> list[str]:
        """Bounds whose null runs vary less than half as much as the plain runs, which suggests that a source
        of variation was not redrawn.

        Null runs of items are excluded, because a coin flip cannot redraw the explained network. Times are
        excluded, because they involve no training.
        """
        if self.null_kind in ("items", "times"):
            return []
        return [metric for metric, (plain, null) in self.deviations.items() if null < plain / 2]


@dataclass(frozen=True, slots=True)
class VerdictTable:
    """The verdicts on papers, in the order of the list.

    facts    (label, text) by paper: machine and date of its runs
    remarks  (paper, text): runs that did not complete, papers without a claim
    """

    rows: Sequence[VerdictRow]
    facts: Mapping[str, Mapping[str, str]]
    remarks: Sequence[tuple[str, str]] = ()

    def joined(self, earlier: VerdictTable, order: Sequence[str]) -> VerdictTable:
        """This table, with the rows of `earlier` for those papers of `order` that it lacks."""
        old = [paper for paper in order if paper not in self.facts]

        def both(ours: Sequence[_T], theirs: Sequence[_T], paper: Callable[[_T], str]) -> list[_T]:
            kept = [*ours, *(one for one in theirs if paper(one) in old)]
            return sorted(kept, key=lambda one: order.index(paper(one)))

        return VerdictTable(
            both(self.rows, earlier.rows, lambda row: row.paper),
            {paper: facts for paper in order if (facts := self.facts.get(paper) or earlier.facts.get(paper))},
            both(self.remarks, earlier.remarks, lambda remark: remark[0]),
        )

    def runs(self) -> list[tuple[list[str], Mapping[str, str]]]:
        """Papers grouped by the facts about their runs."""
        alike: list[tuple[list[str], Mapping[str, str]]] = []
        for paper, facts in self.facts.items():
            for papers, theirs in alike:
                if theirs == facts:
                    papers.append(paper)
                    break
            else:
                alike.append(([paper], facts))
        return alike

    def to_json(self) -> str:
        body = {
            "schema": SCHEMA,
            "procedure": PROCEDURE,
            "runs": [{"papers": papers, "facts": facts} for papers, facts in self.runs()],
            "headline": headline(self.rows),
            "claims": [row.to_json() for row in self.rows],
            "remarks": self.remarks,
        }
        return json.dumps(_finite(body), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> VerdictTable:
        """Raises ValueError if `text` is not such a table."""
        try:
            body = json.loads(text)
            return cls(
                [VerdictRow.from_json(fields) for fields in body["claims"]],
                {paper: group["facts"] for group in body["runs"] for paper in group["papers"]},
                [(paper, said) for paper, said in body["remarks"]],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a table of verdicts: {error!r}") from error


def _deviations(judged: Judged, null: Judged) -> dict[str, tuple[float, float]]:
    """As in `VerdictRow.deviations`."""
    found = {}
    for ours, theirs in zip(judged.columns, null.columns, strict=False):
        both = ours.margins, theirs.margins
        if ours.bound == theirs.bound and all(margins and len(margins) > 1 for margins in both):
            plain, redrawn = (stdev(margins or ()) for margins in both)
            found[ours.bound.metric] = plain, redrawn
    return found


def headline(rows: Sequence[VerdictRow]) -> str:
    """`38 of 41 measured claims reproduced`, and the number of other verdicts.

    Rows of an earlier procedure are counted separately.
    """
    now, earlier = _by_procedure(rows)
    counts = [_count(now)] if now or not earlier else []
    return "; ".join(counts + ([_count(earlier, " by the earlier procedure")] if earlier else []))


def _by_procedure(rows: Sequence[VerdictRow]) -> tuple[list[VerdictRow], list[VerdictRow]]:
    """The measured claims judged by this procedure, and those judged by an earlier one."""
    measured = [row for row in rows if row.claim.kind == "measured"]
    return [row for row in measured if not row.earlier], [row for row in measured if row.earlier]


def _count(measured: Sequence[VerdictRow], by: str = "") -> str:
    reproduced, others = _tally(measured)
    said = f"{reproduced} of {len(measured)} measured claims reproduced{by}{others}"
    if papers := [row for row in measured if row.claim.headline]:
        reproduced, others = _tally(papers)
        said = f"{reproduced} of {counted(len(papers), 'paper')}: headline claim reproduced{others}; {said}"
    return said


def _tally(rows: Sequence[VerdictRow]) -> tuple[int, str]:
    """The number of reproduced claims, and the numbers of the other verdicts in parentheses."""
    counts = Counter(one.verdict for one in rows)
    rest = ", ".join(f"{counts[v]} {v}" for v in _ORDER[1:] if counts[v])
    return counts["reproduced"], f" ({rest})" if rest else ""


def error_rates(rows: Sequence[VerdictRow]) -> list[tuple[str, str]]:
    """How often null runs pass the rule and breaks are caught, with 95 % intervals."""
    now, earlier = _by_procedure(rows)
    rates = _rates(now, "near misses", "near miss") if now or not earlier else []
    before = _rates(earlier, "breaks", "near miss", "coarse") if earlier else []
    return rates + [(f"{label}, by the earlier procedure", rate) for label, rate in before]


def _rates(rows: Sequence[VerdictRow], what: str, *roles: Role) -> list[tuple[str, str]]:
    """The rates for null runs, and for the breaks that count. A break with weak evidence is not caught."""
    stands = [row for row in rows if row.verdict in ("reproduced", "not specific")]
    broken = [verdict for row in stands for verdict in row.tried(*roles).values()]
    alike = sum(len(row.alike) for row in rows)
    return [
        *_null_rates(rows),
        (
            f"{what} caught, of the claims that are reproduced",
            _rate(broken, lambda verdict: verdict not in ("reproduced", "weak")),
        ),
        *([("breaks equal to their control in every number (not counted)", str(alike))] if alike else []),
    ]


_NULLS: dict[NullKind | Literal[""], str] = {
    "": "null runs reproduced",
    "items": "null runs reproduced, coin toss per item",
    "as good as": 'null runs reproduced, "as good as" claims',
    "times": "null runs reproduced, timing claims",
}


def _null_rates(rows: Sequence[VerdictRow]) -> Iterator[tuple[str, str]]:
    """The false positive rate of each kind of null run. Pipelines are listed even if there are none."""
    for kind, label in _NULLS.items():
        found = [
            row.null for row in rows if row.null and row.null_kind in ((kind,) if kind else ("", "pipelines"))
        ]
        if found or not kind:
            yield label, _rate(found, lambda verdict: verdict == "reproduced")


def forecast(rows: Sequence[VerdictRow]) -> list[str]:
    """The expected number of verdicts that another verification changes (see `--audit`), if known."""
    chances = [row.otherwise for row in _by_procedure(rows)[0] if row.otherwise is not None]
    if not chances:
        return []
    return [f"another verification is expected to change {sum(chances):.1f} of {len(chances)} verdicts"]


def _rate(verdicts: Sequence[Verdict], counts: Callable[[Verdict], bool]) -> str:
    """A rate with its interval. Runs that were not judged are counted separately."""
    judged = [verdict for verdict in verdicts if verdict != "not judged"]
    if not judged:
        return "not run" if not verdicts else f"{len(verdicts)} not judged"
    hits = sum(map(counts, judged))
    low, high = wilson(hits, len(judged))
    said = f"{hits} of {len(judged)} (95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
    return f"{said}; {len(verdicts) - len(judged)} not judged" if len(judged) < len(verdicts) else said


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the proportion `hits` / `count`."""
    z = 1.959964
    share, denominator = hits / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / denominator
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / denominator
    return max(0.0, middle - half), min(1.0, middle + half)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def caveats(row: VerdictRow) -> list[str]:
    """Caveats of the verdict: why, rivals, unsteady seeds, an earlier procedure, the edges of the grid."""
    unsteady = row.verdict == "reproduced" and row.held < STEADY * len(row.seeds)
    notes = [row.why] if row.why else []
    also = ", ".join(name for name, found in row.tried("rival").items() if found == "weak")
    # A rival with the required effect makes the claim not specific, and a weak claim says so in `why`.
    notes += [f"a rival has an effect, too: {also}"] if also and row.verdict == "reproduced" else []
    notes += ["unsteady"] if unsteady else []
    notes += ["earlier"] if row.earlier else []
    narrow = ", ".join(row.narrow)
    notes += [f"its null runs vary less than half as much as it does: {narrow}"] if narrow else []
    edges = [f"best at the edge of the grid: {', '.join(row.edges)}"] if row.edges else []
    return notes + edges


def rules(claim: Claim) -> str:
    """The bounds, grouped by metric: `loss ≥ 0.4, ≤ 0.6; accuracy > 0.9`; then the guards."""
    said = _together(claim.rule)
    if claim.conditions:
        said += f". The control must reach {_together(claim.conditions)}"
    return f"{said}. By construction: {_together(claim.guards)}" if claim.guards else said


def _together(bounds: Iterable[Bound | Speedup | Growth]) -> str:
    of_metric: dict[str, list[str]] = {}
    for bound in bounds:
        said = str(bound).removeprefix(bound.metric).strip()
        if bound.direction is not None:
            said += f" (weak from {format_number(bound.direction)})"
        of_metric.setdefault(bound.metric, []).append(said)
    return "; ".join(f"{metric} {', '.join(bounds)}" for metric, bounds in of_metric.items())
