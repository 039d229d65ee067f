"""The numbers from a comparison (`Run.compare`) and functions that relate them."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from readtrack.claims import AtLeast
from readtrack.runs.trial import Best, Point, Trial, Work

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Value: TypeAlias = "float | AtLeast | torch.Tensor"
Metrics: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Sweep(Generic[T]):
    """The attempts of one arm over the grid.

    chosen  the outcome at `point`, the best point, or the outcome of the second training if there was one
    points  outcome by point of the grid
    """

    chosen: T
    point: Point
    points: Mapping[Point, T]


@dataclass(slots=True)
class Table:
    """The numbers of a comparison by row and metric.

    A row is an arm, an arm at a level ("LSTM@4"), a yardstick or a reference. Row "" has metrics of the whole
    table. A tensor has one value for each judged item, and counts as their mean.

    world   the comparison's world, after a break that replaces it
    sweeps  attempts by row
    works   work of each attempt and stage
    """

    world: Any = None
    rows: dict[str, dict[str, Value]] = field(default_factory=dict)
    sweeps: dict[str, Sweep[Any]] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)
    best: dict[str, Best[Any]] = field(default_factory=dict)
    stages: dict[Hashable, tuple[Work, Any]] = field(default_factory=dict)

    def __getitem__(self, cell: tuple[str, str]) -> float | AtLeast:
        """The number at (row, metric)."""
        row, metric = cell
        return number(self.rows[row][metric])

    def of(self, metric: str) -> dict[str, float | AtLeast]:
        """The numbers of a metric by row, for the rows that have it."""
        return {row: number(found[metric]) for row, found in self.rows.items() if metric in found}

    def stage(self, first: Callable[[Trial], T]) -> T:
        """The result of a stage that arms of a plain run shared. Raises KeyError if no arm used it."""
        found: T = self.stages[first, "", 1.0, False][1]
        return found

    def add(self, rows: Mapping[str, Metrics]) -> None:
        for row, metrics in rows.items():
            self.rows.setdefault(row, {}).update(metrics)

    def attempts(self, label: str) -> list[Work]:
        """The attempts of an arm by its label in curves: the row, except in null and untrained runs."""
        return [work for work in self.works if not work.stage and work.arm == label]

    def same(self, ours: str, theirs: str, labels: tuple[str, str] | None = None) -> bool:
        """Whether two rows are equal to the last bit: losses, scores, and the numbers that both have.

        labels  the arms' labels in curves, where they differ from the rows
        """
        mine, other = map(self.attempts, labels or (ours, theirs))
        tried = all(
            repr((a.losses, a.score)) == repr((b.losses, b.score)) for a, b in zip(mine, other, strict=False)
        )
        a, b = self.rows[ours], self.rows[theirs]
        return tried and all(repr(plain(a[name])) == repr(plain(b[name])) for name in a.keys() & b.keys())


def plain(value: Value) -> Any:
    """The value as numbers and lists that can be compared."""
    if isinstance(value, AtLeast | float | int):
        return value.value if isinstance(value, AtLeast) else value
    return value.tolist()


def number(value: Value) -> float | AtLeast:
    if isinstance(value, float | int | AtLeast):
        return value
    return float((value if value.is_floating_point() else value.double()).mean().item())


def items(value: Value) -> torch.Tensor | None:
    """One number per judged item, from the first axis, or None if the items were not recorded."""
    import torch

    if not isinstance(value, torch.Tensor) or value.dim() == 0 or len(value) < 2:
        return None
    return value.double().cpu().reshape(len(value), -1).mean(1)


def related(ours: float | AtLeast, theirs: float | AtLeast, how: str, op: str) -> float | AtLeast:
    """`ours - theirs`, `ours / theirs`, or `ours` alone, where either may be a lower bound.

    If only `theirs` is a lower bound, the result is an upper bound: it can satisfy upper bounds, and is NaN
    for all others.
    """
    if not how:
        return ours
    a, b = (value.value if isinstance(value, AtLeast) else value for value in (ours, theirs))
    result = a - b if how == "-" else a / b if b else math.nan
    if isinstance(theirs, AtLeast):
        return math.nan if isinstance(ours, AtLeast) or op not in ("<=", "<") else result
    return AtLeast(result) if isinstance(ours, AtLeast) else result


def fall(losses: Sequence[float]) -> float:
    """The share of the loss's total decrease that occurs in the last fifth of training.

    The decrease in the last fifth is estimated from the means of its two halves.

    NaN if the loss does not decrease, or has too few steps.
    """
    fifth = len(losses) // 5
    if fifth < 2:
        return math.nan
    before, after = losses[-fifth : -fifth // 2], losses[-fifth // 2 :]
    whole = fmean(losses[: max(fifth // 4, 1)]) - fmean(after)
    return 2 * (fmean(before) - fmean(after)) / whole if whole > 0 else math.nan
