"""Null runs of a benchmark: what a claim compares with is timed against itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from readtrack.bench.case import Case, Variant
from readtrack.bench.judge import Speedup

# Whom `Speedup.over` names besides a variant: the strong variants include the compiled and the naive ones.
_STRONG = ("strong", "compiled", "naive")


def null_case(case: Case, bounds: Iterable[Speedup]) -> Case:
    """`case` as a null run has it: what a bound's `over` names also stands under the name of its `of`.

    Two measurements of the same code differ by nothing but chance. Cases that no bound is about are as ever.
    """
    for bound in bounds:
        if bound.case != case.name or not (named := _named(case, bound.over)):
            continue
        others = [one for one in case.variants if bound.of not in (one.name, one.role)]
        of_role = len(others) < len(case.variants) and not any(one.name == bound.of for one in case.variants)
        copies = [
            replace(one, name=f"{one.name}, again", role=bound.of)  # type: ignore[arg-type]
            for one in (named if of_role else ())
        ]
        if not of_role:
            copies = [replace(named[0], name=bound.of, role="paper")]
        case = replace(case, variants=[*others, *copies])
    return case


def _named(case: Case, over: str) -> list[Variant]:
    """The variants that can run, of a role or of a name."""
    roles = _STRONG if over == "strong" else (over,)
    found = [one for one in case.variants if (one.name == over or one.role in roles) and not one.needs]
    return sorted(found, key=lambda one: roles.index(one.role) if one.role in roles else 0)
