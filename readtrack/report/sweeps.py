"""Reduces curves over several settings to the setting that the run chose for each arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from readtrack.runs.record import Record

_BEST = "best "  # prefix of metrics such as `best rate`, the value chosen by an arm's sweep
_CLOSE = 1e-3  # relative tolerance, because names have fewer digits than numbers

Points = list[tuple[float, float]]


class _Attempt(NamedTuple):
    """An attempt's name, such as `loss, rate 0.03` with the head "loss"."""

    head: str
    what: str
    value: float


def chosen(record: Record) -> dict[str, dict[str, float]]:
    """Maps each swept setting to the best value of each arm."""
    found: dict[str, dict[str, float]] = {}
    for (name, arm), value in record.values.items():
        if name.startswith(_BEST) and math.isfinite(value):
            found.setdefault(name.removeprefix(_BEST), {})[arm] = value
    return found


def at_the_best(record: Record) -> tuple[Record, dict[str, str]]:
    """The record without curves of settings that no arm chose, and a note for each remaining curve.

    `loss, rate 0.01` and `loss, rate 0.03` become one curve `loss at the best rate`. Of the arms `ours, rate
    0.01` and `ours, rate 0.03`, the one at the best rate is kept. If the record does not contain the best
    setting, names are unchanged.
    """
    best = chosen(record)
    curves: dict[str, dict[str, Points]] = {}
    notes: dict[str, str] = {}
    cells: dict[tuple[str, str], dict[float, str]] = {}
    for name in record.curves:
        if one := _attempt(name, best):
            cells.setdefault((one.head, one.what), {})[one.value] = name
    merged: dict[str, tuple[str, dict[str, Points], str]] = {}
    for (head, what), names in cells.items():
        if len(names) < 2 or not (kept := _each_at_its_best(record, names, what, best[what])):
            continue
        note = f"{len(names)} values of the {what} were tried. Each arm is drawn at its best value."
        merged |= dict.fromkeys(names.values(), (f"{head} at the best {what}", kept, note))
    for name, arms in record.curves.items():
        if name in merged:
            title, kept, note = merged[name]
            curves[title], notes[title] = kept, note
            continue
        curves[name], left = _best_arms(arms, best)
        if left:
            notes[name] = "Each arm is drawn at its best setting. The others are left out."
    headline = merged[record.headline_curve][0] if record.headline_curve in merged else record.headline_curve
    return replace(record, curves=curves, headline_curve=headline), notes


def _attempt(name: str, best: Mapping[str, object]) -> _Attempt | None:
    rest, _, number = name.rpartition(" ")
    try:
        value = float(number)
    except ValueError:
        return None
    split = (rest.rpartition(between) for between in (", ", " at "))
    return next((_Attempt(head, what, value) for head, _, what in split if head and what in best), None)


def _each_at_its_best(
    record: Record, names: Mapping[float, str], what: str, best: Mapping[str, float]
) -> dict[str, Points]:
    """The arms' curves at the chosen values; empty unless every arm has one. An arm without a choice is shown
    if it has a single curve.
    """
    arms = dict.fromkeys(arm for name in names.values() for arm in record.curves[name])
    found = {}
    for arm in arms:
        value = best.get(arm)
        there = [
            v
            for v, name in names.items()
            if arm in record.curves[name] and (value is None or _same(v, value))
        ]
        if len(there) == 1:
            found[arm if value is None else f"{arm}, {what} {value:g}"] = record.curves[names[there[0]]][arm]
        elif value is not None:
            return {}  # the choice was made by another sweep with the same name
    return found


def _best_arms(
    arms: Mapping[str, Points], best: Mapping[str, Mapping[str, float]]
) -> tuple[dict[str, Points], bool]:
    """The arms such as `ours, rate 0.03` at the chosen rate only, and whether any was left out."""
    found = {arm: _attempt(arm, best) for arm in arms}
    kept = {
        arm: points
        for arm, points in arms.items()
        if (one := found[arm]) is None or _same(one.value, best[one.what].get(one.head, one.value))
    }
    heads = {one.head for one in found.values() if one}
    if heads - {one.head for arm in kept if (one := found[arm])}:
        return dict(arms), False  # the choice was made by another sweep with the same name
    return kept, len(kept) < len(arms)


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_CLOSE)
