"""Scales that all charts share."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise

DECADES = 1000.0
_FACTOR = 1.5  # smallest ratio of neighbouring points that counts as spacing by factors
_REACH = 8.0
_TIME = re.compile(r"\b(step|update|epoch|iteration)s?\b")


def wants_log(values: Iterable[float]) -> bool:
    """Whether all values are positive and span more than three decades, too much for a linear axis."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > DECADES * min(finite)


def by_factors(places: Iterable[float]) -> bool:
    """Whether the points of an axis are positive and spaced by factors, such as 1, 4, 16, 64.

    A linear axis would squeeze most of them together.
    """
    found: set[float] = set()
    before = math.inf
    for place in places:
        if before < place < _FACTOR * before:
            return False  # most curves fail here, at steps 3 and 4
        found.add(place)
        before = place
    ordered = sorted(found)
    if len(ordered) < 3 or ordered[0] <= 0 or not math.isfinite(ordered[-1]):
        return False
    factors = [after / before for before, after in pairwise(ordered)]
    return min(factors) >= _FACTOR and ordered[-1] >= _REACH * ordered[0]


def is_timed(name: str, x: str, places: Iterable[float]) -> bool:
    """Whether the curve `name` over the axis `x` ("" for the default) is a time series.

    "accuracy over rate" is not.
    """
    over = x or name.partition(" over ")[2]
    return bool(_TIME.search(over)) if over else not by_factors(places)
