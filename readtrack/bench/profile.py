"""Performance profile of all papers: the share of cases at least p times as fast as the strongest rival.

The curve of Dolan & Moré 2002, "Benchmarking optimization software with performance profiles", for one
solver, the paper's fastest variant, against one rival, the fastest free variant. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from readtrack.bench.compare import HasMeasurements, is_number, is_whole

LEVELS = (0.1, 0.25, 0.5, 0.8, 0.95, 1.0, 1.05, 1.25, 2.0, 4.0)
_NO_RESULT = {"over-ceiling", "review"}  # flags of results that need an explanation first


@dataclass(frozen=True, slots=True)
class Standing:
    """The paper's fastest variant in one case and mode.

    speed      speed-up over the strongest rival
    closeness  closeness to the machine's limit, or None
    contended  whether other programs ran during the measurement
    """

    paper: str
    case: str
    axes: Mapping[str, Any]
    mode: str
    variant: str
    speed: float
    closeness: float | None
    contended: bool


def standings(records: Iterable[HasMeasurements]) -> list[Standing]:
    """One entry per case, point and mode of each run in which a paper's variant and a rival have a time."""
    found: dict[tuple[Any, ...], Standing] = {}
    for record in records:
        for row in filter(is_whole, record.measurements):
            speed: Any = row.get("vs_strong")
            flags, close = set(row.get("flags") or ()), row.get("closeness")
            if row.get("role") != "paper" or not is_number(speed) or speed <= 0 or flags & _NO_RESULT:
                continue
            key = record.paper, row["case"], tuple(sorted(row["axes"].items())), row["mode"]
            if key in found and found[key].speed >= speed:
                continue
            found[key] = Standing(
                paper=record.paper,
                case=row["case"],
                axes=row["axes"],
                mode=row["mode"],
                variant=row["variant"],
                speed=speed,
                closeness=close if is_number(close) else None,
                contended="contended" in flags,
            )
    return list(found.values())


def share(found: Sequence[Standing], speed: float) -> float:
    """The share of cases that are at least `speed` times as fast as the strongest rival.

    Raises ValueError if there are none.
    """
    if not found:
        raise ValueError("no case has both a paper's variant and a rival")
    return sum(one.speed >= speed for one in found) / len(found)
