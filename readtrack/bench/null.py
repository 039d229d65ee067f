"""Null runs of a benchmark: the baseline of a claim is timed against itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from readtrack.bench.case import Case, Variant
from readtrack.bench.judge import Speedup

# Roles that `Speedup.over="strong"` includes.
_STRONG = ("strong", "compiled", "naive")


def null_case(case: Case, bounds: Iterable[Speedup]) -> Case:
    """`case` in a null run: the variants that a bound's `over` names also take the place of its `of`.

    Two measurements of the same code differ only by chance. Cases without a bound are unchanged.
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
    """The variants of a role or name that can run."""
    roles = _STRONG if over == "strong" else (over,)
    found = [one for one in case.variants if (one.name == over or one.role in roles) and not one.needs]
    return sorted(found, key=lambda one: roles.index(one.role) if one.role in roles else 0)
