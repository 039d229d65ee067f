"""Benchmark each of the paper's variants with the reader's functions and as shipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from readtrack.bench.case import Case, Variant
from readtrack.bench.module import ModuleCall
from readtrack.practice.exercise import YOURS
from readtrack.practice.session import Places


def with_yours(case: Case, places: Places) -> Case:
    """The case with the reader's variants first. The paper's own variants follow with the role "shipped".

    The functions stay switched until the next call, because the backward pass follows the forward call.
    """
    variants: list[Variant] = []
    for variant in case.variants:
        if variant.role == "paper":
            variants.append(replace(_switched(variant, places, on=True), name=f"{variant.name}{YOURS}"))
            variants.append(replace(_switched(variant, places, on=False), role="shipped"))
        else:
            variants.append(_switched(variant, places, on=False))
    oracle = case.oracle and _after(places, False, case.oracle)
    return replace(case, variants=variants, oracle=oracle)


def judged(measurements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The measurements to judge claims on: the reader's, renamed to the paper's variants."""
    return [
        {**one, "variant": str(one["variant"]).removesuffix(YOURS)}
        for one in measurements
        if one["role"] != "shipped"
    ]


def _switched(variant: Variant, places: Places, *, on: bool) -> Variant:
    change = partial(_after, places, on)
    call = variant.call
    return replace(variant, call=call.through(change) if isinstance(call, ModuleCall) else change(call))


def _after(places: Places, on: bool, call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        places.switch(on)
        return call(*inputs)

    return run
