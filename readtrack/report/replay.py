"""Compares a run with its repetition: SAME, DIFFERENT or UNCLEAR for each claim, and code differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import stdev
from typing import Any, Literal

from readtrack.bench.judge import BoundEstimate, Growth, Speedup
from readtrack.claims import Bound
from readtrack.plugins import prints
from readtrack.procedure import LOOKS, margins
from readtrack.report.card import Card, CardClaim
from readtrack.report.effects import said
from readtrack.verdict_table import VerdictRow

Verdict = Literal["SAME", "DIFFERENT", "UNCLEAR"]

_CLOSE = 0.05  # fraction of the distance to the threshold; smaller differences are ignored
_ROUNDING = 1e-6  # relative rounding error
# Multiples of the standard deviation over seeds. With another processor, number of threads or torch,
# floating-point sums have a different order. Training can amplify this difference until it is as large as the
# difference between two seeds (Summers and Dinneen, 2021), and 95 % of the differences between two seeds are
# below 1.96 √2 standard deviations. If the order cannot be the cause, a quarter of a standard deviation is
# allowed.
_OF_THE_SEEDS, _REORDERED = 0.25, 1.96 * math.sqrt(2)
_ORDER = ("torch", "device_name", "cpu", "threads")  # facts that change only the order of sums
RULE = (
    "A claim is SAME if both runs reach the same verdict and its values differ by at most 5 % of the "
    "distance to the threshold or a quarter of the standard deviation over seeds. If the paper’s code is "
    "the same and only the processor, the thread count or the version of torch differs, floating-point sums "
    "have a different order. Training can amplify this difference until it is as large as the difference "
    "between two seeds, so the values may then differ by 2.8 standard deviations, the limit for 95 % of all "
    "pairs of seeds. A claim is DIFFERENT if its verdict or its rule differs. It is also DIFFERENT if its "
    "values differ and either the setting is the same or the code has changed. If only the code differs, "
    "every difference beyond rounding counts. All other claims are UNCLEAR, for example if the order of sums "
    "may be the cause and no spread over seeds is known. Standard deviations come from the shipped verdicts. "
    "Comments, docstrings and formatting are ignored when code is compared."
)
_AT_THE_THRESHOLD = 0.02  # relative distance from the threshold within which two runs may fall on either side
# Number of seeds -> expected range of that many normal values, in standard deviations (Tippett 1925).
_RANGES = {5: 2.326, 10: 3.078, 20: 3.735}

# Maps (claim, metric) to the standard deviation over the verdict's seeds, of logarithms for a ratio.
Spreads = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class ClaimReplay:
    """A claim of the card and the same claim of the repetition.

    numbers  the differences, or the equal numbers, as text
    why      the reason for the verdict, if it is not obvious
    """

    name: str
    verdict: Verdict
    there: str
    here: str
    numbers: str
    why: str


@dataclass(frozen=True, slots=True)
class Replay:
    """The comparison. code: places where the paper's code differs; environment: other differences."""

    claims: list[ClaimReplay]
    code: list[prints.Change]
    code_known: bool
    environment: list[str]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all claims; UNCLEAR without claims."""
        found = {one.verdict for one in self.claims}
        return "DIFFERENT" if "DIFFERENT" in found else "SAME" if found == {"SAME"} else "UNCLEAR"

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "claims": [asdict(one) for one in self.claims],
            "code": [change._asdict() for change in self.code],
            "code_known": self.code_known,
            "environment": self.environment,
        }


def replay(there: Card, here: Card, spreads: Spreads) -> Replay:
    """Compare the card's claims with those of the repetition."""
    known = bool(there.code and here.code)
    changed = prints.changes(there.code, here.code) if known else []
    other = _environment(there, here)
    reordered = known and not changed and bool(other) and other.keys() <= set(_ORDER)
    slack = _REORDERED if reordered else _OF_THE_SEEDS
    tolerances = {name: slack * spread for name, spread in spreads.items()}
    ours = {one.name: one for one in here.claims}
    theirs = {one.name: one for one in there.claims}
    told = list(other.values())
    claims = [
        _compared(name, theirs.get(name), ours.get(name), changed, told, tolerances, reordered=reordered)
        for name in dict.fromkeys([*theirs, *ours])
    ]
    return Replay(claims, changed, known, told)


def spreads(rows: Sequence[VerdictRow]) -> Spreads:
    """The spread of each bound, from the seeds' values, or from their range if only that was stored."""
    found = {}
    for row in rows:
        for bound in row.claim.bounds:
            values = [value for value in row.values.get(bound.metric, ()) if value is not None]
            words = said(row.ours, bound.metric)
            if len(values) >= LOOKS[0].seeds and (distances := margins(bound, values)):
                found[row.claim.name, bound.metric] = stdev(distances)
            elif not values and words and len(row.seeds) in _RANGES:
                ends = margins(bound, (words.low, words.high))
                if ends:
                    found[row.claim.name, bound.metric] = abs(ends[1] - ends[0]) / _RANGES[len(row.seeds)]
    return found


def _environment(there: Card, here: Card) -> dict[str, str]:
    """Differences such as `torch: 2.13.0 there, 2.14.0 here`. The number of cores does not count."""
    names = [("versions", name) for name in ("readtrack", "torch")]
    names += [("machine", name) for name in ("device_name", "cpu", "threads", "dtype")]
    found = {}
    for group, name in names:
        a, b = getattr(there, group).get(name), getattr(here, group).get(name)
        if a != b:
            found[name] = f"{name.replace('_', ' ')}: {a or 'unknown'} there, {b or 'unknown'} here"
    return found


def _compared(
    name: str,
    there: CardClaim | None,
    here: CardClaim | None,
    changed: Sequence[prints.Change],
    other: Sequence[str],
    tolerances: Mapping[tuple[str, str], float],
    *,
    reordered: bool,
) -> ClaimReplay:
    if there is None or here is None:
        why = "the claim is not stated here" if here is None else "the card does not have the claim"
        said = (there.verdict if there else "", here.verdict if here else "")
        return ClaimReplay(name, "DIFFERENT", *said, "", why)
    if _rule(there) != _rule(here):
        return ClaimReplay(name, "DIFFERENT", there.verdict, here.verdict, "", "the rule differs")
    pairs = [
        _pair(bound, there, here, tolerances.get((name, bound.metric), 0.0)) for bound in there.claim.rule
    ]
    numbers = "; ".join(said for said, _, _ in pairs)
    verdict, why = _judged(there, here, pairs, changed, other)
    unmeasured = any((name, bound.metric) not in tolerances for bound in there.claim.bounds)
    if verdict == "DIFFERENT" and reordered and unmeasured and there.claim.kind == "measured":
        verdict, why = "UNCLEAR", "the verdicts differ, and no shipped verdict states the spread over seeds"
    return ClaimReplay(name, verdict, there.verdict, here.verdict, numbers, why)


def _judged(
    there: CardClaim,
    here: CardClaim,
    pairs: Sequence[tuple[str, bool, bool]],
    changed: Sequence[prints.Change],
    other: Sequence[str],
) -> tuple[Verdict, str]:
    """The verdict and the reason for it."""
    because = f"the code differs: {prints.in_words(changed)}" if changed else ""
    if "not judged" in (there.verdict, here.verdict):
        why = there.why if there.verdict == "not judged" else here.why
        if there.verdict != here.verdict or not all(agree for _, agree, _ in pairs):
            return ("DIFFERENT", because) if changed else ("UNCLEAR", why)
        return ("UNCLEAR", because) if changed else ("SAME", why)
    if there.verdict != here.verdict:
        near = all(agree or straddle for _, agree, straddle in pairs)
        if near and not changed:
            return "UNCLEAR", "the values lie at the threshold"
        return "DIFFERENT", because or "the verdicts differ"
    if there.claim.kind != "measured":
        return "SAME", ""
    if changed and not other and _moved(there, here):
        return "DIFFERENT", because
    if all(agree for _, agree, _ in pairs):
        return "SAME", ""
    if changed:
        return "DIFFERENT", because
    if other:
        return (
            "UNCLEAR",
            f"the rule gives the same result for different numbers in another setting ({'; '.join(other)})",
        )
    return "DIFFERENT", "the numbers differ although code and setting are the same"


def _rule(one: CardClaim) -> tuple[object, ...]:
    return one.claim.rule, one.claim.kind, one.claim.guards, one.claim.control_reaches


def _pair(
    bound: Bound | Speedup | Growth, there: CardClaim, here: CardClaim, tolerance: float
) -> tuple[str, bool, bool]:
    """The two values of a bound as text, whether they agree, and whether both are close to the threshold."""
    if not isinstance(bound, Bound):
        a, b = (one.timed.get(bound.metric, BoundEstimate()) for one in (there, here))
        said = f"{bound.metric} {a.value:.3g} and {b.value:.3g}"
        # Times differ from run to run. The rule defines which differences matter.
        return said, a.verdict(bound) == b.verdict(bound), False
    x, y = (bound.value(one.values, one.at_least) for one in (there, here))
    return f"{bound.metric} {x:.4g} and {y:.4g}", _agree(bound, x, y, tolerance), _straddle(bound, x, y)


def _agree(bound: Bound, a: float, b: float, tolerance: float) -> bool:
    """Whether the difference is within rounding, small relative to the distance to the threshold, or within
    the tolerance.
    """
    if not (math.isfinite(a) and math.isfinite(b)):
        return a == b or (math.isnan(a) and math.isnan(b))
    if math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=1e-12):
        return True
    if bound.op == "==":
        return False
    if bound.ratio and min(a, b, bound.threshold) > 0:
        a, b, threshold = math.log(a), math.log(b), math.log(bound.threshold)
    else:
        threshold = bound.threshold
    nearest = min(abs(a - threshold), abs(b - threshold))
    return abs(a - b) <= max(_CLOSE * nearest, tolerance)


def _moved(there: CardClaim, here: CardClaim) -> bool:
    """Whether a number of the claim differs by more than rounding."""
    pairs = [(value, here.values[name]) for name, value in there.values.items() if name in here.values]
    return not all(
        math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
        for a, b in pairs
    )


def _straddle(bound: Bound, a: float, b: float) -> bool:
    size = max(abs(bound.threshold), 1e-12)
    return abs(a - b) <= _AT_THE_THRESHOLD * size
