"""Texts for a run's claims: the rules of pending claims, and the outcomes of judged claims."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from readtrack.claims import Claim
from readtrack.present.marks import PENDING
from readtrack.runs.evidence import shown_verdict
from readtrack.runs.job import Job
from readtrack.runs.record import Record
from readtrack.text import format_number, one_line

_STOOD = ("held", "reproduced")


class Number(NamedTuple):
    """One metric of a claim: our value, its bounds, and whether all of them hold."""

    metric: str
    ours: str
    bounds: str
    held: bool


@dataclass(frozen=True, slots=True)
class StatedClaim:
    """A claim and its outcome. All texts are safe to print.

    claim     None if another version of readtrack wrote it
    verdict   `pending` until it is judged
    at_least  the metrics in `values` that are lower bounds
    edges     arms whose best value is at the edge of its grid
    judged    whether the run has judged it
    """

    name: str
    verdict: str
    claim: Claim | None
    kind: str = "measured"
    values: Mapping[str, float] = field(default_factory=dict)
    at_least: tuple[str, ...] = ()
    why: str = ""
    ours: str = ""
    edges: tuple[str, ...] = ()
    judged: bool = False

    @property
    def shown_verdict(self) -> str:
        """The verdict, or `exact` for an identity or a theorem that held, which is not evidence."""
        return shown_verdict(self.verdict, self.kind)

    def shown(self, metric: str) -> str:
        """`0.7`, `at least 400`, `nan`."""
        return f"{'at least ' if metric in self.at_least else ''}{number(self.values.get(metric, math.nan))}"

    @property
    def rule(self) -> str:
        """The bounds, grouped by metric: `loss ≥ 0.4, ≤ 0.6; accuracy > 0.9`."""
        return "; ".join(f"{metric} {bounds}" for metric, bounds in self._bounds().items())

    @property
    def decisive(self) -> str:
        """The values of the metrics in the rule, or all values if the rule cannot be read."""
        if self.claim is None:
            return self.ours
        return ", ".join(f"{name} {self.shown(name)}" for name in self._bounds() if name in self.values)

    @property
    def paper(self) -> str:
        """The value that the paper reports, and its source. A sentence ends with a full stop."""
        if self.claim is None:
            return ""
        text = one_line(self.claim.paper.text)
        stop = "." if text[:1].isupper() and not text.endswith((".", "!", "?")) else ""
        return one_line(str(replace(self.claim.paper, text=f"{text}{stop}"))).rstrip(".")

    @property
    def numbers(self) -> list[Number]:
        """Every value, with its bounds."""
        of_metric, rule = self._bounds(), self.claim.rule if self.claim is not None else ()
        return [
            Number(
                one_line(metric),
                self.shown(metric),
                of_metric.get(metric, ""),
                all(b.holds(b.value(self.values, self.at_least)) for b in rule if b.metric == metric),
            )
            for metric in self.values
        ]

    def line(self) -> str:
        """The whole claim on one line, for a pipe."""
        told = "; ".join(
            f"{one.metric} {one.ours}{f' ({one.bounds})' if one.bounds else ''}" for one in self.numbers
        )
        return f"{self.shown_verdict}: {self.name}: {told or self.ours or self.why}; paper: {self.paper}"

    def _bounds(self) -> dict[str, str]:
        found: dict[str, list[str]] = {}
        for bound in self.claim.rule if self.claim is not None else ():
            found.setdefault(bound.metric, []).append(str(bound).removeprefix(bound.metric).strip())
        return {metric: ", ".join(bounds) for metric, bounds in found.items()}


def judged(event: Mapping[str, Any]) -> StatedClaim:
    """The view of a `claim` event."""
    return StatedClaim(
        one_line(str(event["claim"]["name"])),
        one_line(str(event["verdict"])),
        _read(event["claim"]),
        str(event["claim"].get("kind") or "measured"),
        {str(name): math.nan if value is None else float(value) for name, value in _values(event)},
        tuple(map(str, event.get("at_least") or ())),
        one_line(str(event.get("why") or "")),
        one_line(str(event.get("ours") or "")),
        tuple(one_line(str(edge)) for edge in event.get("edges") or ()),
        judged=True,
    )


def _values(event: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    yield from (event.get("values") or {}).items()


def _read(fields: Mapping[str, Any]) -> Claim | None:
    try:
        return Claim.from_json(fields)
    except (TypeError, KeyError, ValueError):
        return None


def stated(record: Record) -> list[StatedClaim]:
    """The claims in the order in which the run stated them."""
    found = {str(event["claim"]["name"]): judged(event) for event in record.claims}
    alive = record.outcome is None
    verdict, why = (PENDING, "") if alive else ("not judged", "the run ended before the claim was judged")
    claims: list[StatedClaim] = []
    for fields in record.stated:
        name = str(fields["name"])
        waiting = StatedClaim(one_line(name), verdict, _read(fields), str(fields.get("kind")), why=why)
        claims.append(found.pop(name, waiting))
    return [*claims, *found.values()]


def side_by_side(a: Record, b: Record) -> dict[str, tuple[StatedClaim | None, StatedClaim | None]]:
    """Each claim of two runs, by name, as it is in `a` and in `b`; None where a run does not state it."""
    ours, theirs = ({one.name: one for one in stated(record)} for record in (a, b))
    return {name: (ours.get(name), theirs.get(name)) for name in dict.fromkeys([*ours, *theirs])}


def counted(record: Record) -> str:
    """`3`, or `1/3` while some are pending."""
    total, done = len(stated(record)), len(record.claims)
    return str(total or "") if done >= total or record.outcome is not None else f"{done}/{total}"


class Baseline(NamedTuple):
    """The verdicts of a plain run for comparison: by claim name, with a short label and their source."""

    verdicts: Mapping[str, str]
    label: str
    source: str


def failed(
    one: StatedClaim, job: Job | None, beside: Baseline
) -> Literal["it failed", "it did not fail", ""]:
    """Whether a claim that holds in a plain run failed in a null run, with a break or with edited code.

    A claim must fail in a null run if it is measured, and with a break that it names.
    """
    if beside.verdicts.get(one.name) not in _STOOD:
        return ""
    if one.verdict == "missed":
        return "it failed"
    named = {entry.name for entry in one.claim.breaks} if one.claim is not None else set()
    must_fall = job is not None and ((job.null and one.kind == "measured") or job.broken in named)
    return "it did not fail" if must_fall and one.verdict == "held" else ""


def number(value: float | None) -> str:
    """Four digits; `nan` and `inf` are kept."""
    return "nan" if value is None else format_number(value) if math.isfinite(value) else str(value)
