"""Correctness before speed: a variant that is not right is shown without a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from readtrack.bench.case import Case, Mode, Variant
from readtrack.text import one_line

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """Errors are against the oracle; `max_rel` is relative to the oracle's largest magnitude."""

    passed: bool
    max_abs: float = 0.0
    max_rel: float = 0.0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"passed": self.passed, "max_abs": self.max_abs, "max_rel": self.max_rel}
        return {**fields, "reason": self.reason} if self.reason else fields


def make_inputs(case: Case, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """The case's inputs for one seed, floating ones rounded to `dtype`, on `device`."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
        for tensor in case.inputs(generator)
    )


def caller(
    call: Callable[..., Any], mode: Mode, inputs: Inputs, gradients_out: Inputs | None = None
) -> Callable[[], Any]:
    """What is checked and timed: forward without autograd, forward and gradients, or a step in place."""
    if mode != "forward+backward":

        def forward() -> Any:
            with torch.no_grad():
                return call(*inputs)

        return forward

    leaves = [tensor for tensor in inputs if tensor.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_(True)

    def both() -> tuple[Any, ...]:
        outputs = as_tuple(call(*inputs))
        differentiable = [out for out in outputs if out.requires_grad]
        grads = gradients_out or tuple(torch.ones_like(out) for out in differentiable)
        gradients = torch.autograd.grad(
            differentiable, leaves, grads, allow_unused=True, materialize_grads=True
        )
        return (*outputs, *gradients)

    return both


def as_tuple(outputs: Any) -> tuple[Any, ...]:
    return tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)


def oracle_of(case: Case) -> Callable[..., Any]:
    if case.oracle is not None:
        return case.oracle
    naive = next((variant for variant in case.variants if variant.role == "naive"), None)
    if naive is None:
        raise ValueError(f"case {case.name!r} has neither an oracle nor a naive variant")
    return naive.call


def tolerance_for(case: Case, mode: Mode, dtype: torch.dtype, numel: int) -> float:
    """Allowed error of one output relative to its largest magnitude: from the dtype and the length of the
    reduction, which is estimated as multiply-adds an output element."""
    if case.tolerance is not None:
        return case.tolerance
    single = torch.finfo(torch.float32).eps
    reduction = min(max(case.cost[mode].flops / 2 / max(numel, 1), 16.0), 65536.0)
    accumulated = (
        16 * math.sqrt(reduction) * (torch.finfo(torch.float64).eps if dtype == torch.float64 else single)
    )
    rounding = 0.0 if dtype in (torch.float32, torch.float64) else 4 * torch.finfo(dtype).eps
    return (2 if mode == "forward+backward" else 1) * (accumulated + rounding)


def check(
    case: Case, variant: Variant, mode: Mode, *, device: torch.device, dtype: torch.dtype, seed: int
) -> Check:
    """Compare the variant with the oracle on fresh inputs drawn from `seed`."""
    inputs = make_inputs(case, seed, device, dtype)
    exact = tuple(t.detach().double() if t.is_floating_point() else t.clone() for t in inputs)
    expected = as_tuple(caller(oracle_of(case), mode, exact)())
    before = [tensor.detach().clone() for tensor in inputs]
    try:
        outputs = as_tuple(caller(variant.call, mode, inputs)())
    except Exception as error:  # a plugin's code may raise anything; the cell says what
        return Check(False, reason=one_line(f"{type(error).__name__}: {error}")[:300])
    if mode != "step" and not all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True)):
        return Check(False, reason="changes its inputs")
    return compare(case, mode, dtype, outputs, expected)


def compare(
    case: Case, mode: Mode, dtype: torch.dtype, ours: Sequence[Any], expected: Sequence[Tensor]
) -> Check:
    if len(ours) != len(expected):
        return Check(False, reason=f"returns {len(ours)} tensors, the oracle {len(expected)}")
    worst_abs = worst_rel = 0.0
    reason = ""
    for index, (out, exact) in enumerate(zip(ours, expected, strict=True)):
        if not isinstance(out, Tensor) or out.shape != exact.shape:
            return Check(False, reason=f"output {index} has another shape than the oracle's")
        out, exact = out.detach(), exact.detach()
        if not exact.is_floating_point():
            if not torch.equal(out, exact):
                return Check(False, reason=f"output {index} differs")
            continue
        if not torch.isfinite(out).all():
            return Check(False, math.nan, math.nan, f"output {index} is not finite")
        absolute = (out.double() - exact).abs().max().item() if exact.numel() else 0.0
        largest = exact.abs().max().item() if exact.numel() else 0.0
        relative = absolute / max(largest, torch.finfo(torch.float32).tiny)
        worst_abs, worst_rel = max(worst_abs, absolute), max(worst_rel, relative)
        allowed = tolerance_for(case, mode, dtype, exact.numel())
        if relative > allowed:
            reason = (
                f"output {index} is off by {relative:.2g} of its largest magnitude, allowed {allowed:.2g}"
            )
    return Check(not reason, worst_abs, worst_rel, reason)
