"""The paper's own lines through torch.compile: does the compiler make this idea free?"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch

from readtrack.bench.case import Case, Mode, Variant
from readtrack.bench.module import ModuleCall

MODES: tuple[Mode, ...] = ("forward", "forward+backward", "step")
ROLE: Literal["paper compiled"] = "paper compiled"
_SHAPES = 1000  # for which one function may be compiled: after the default, 8, it silently runs as written


def with_compiled(case: Case, device: torch.device) -> Case:
    """The case with a compiled variant after each of the paper's, where it has a mode that is compiled."""
    if not set(case.cost) & set(MODES):
        return case
    variants: list[Variant] = []
    for variant in case.variants:
        variants.append(variant)
        if variant.role == "paper":
            variants.append(_compiled(variant, device))
    return replace(case, variants=variants)


def _compiled(variant: Variant, device: torch.device) -> Variant:
    needs = variant.needs or missing(device)
    call = variant.call
    if not needs:
        call = call.through(_compile) if isinstance(call, ModuleCall) else _compile(call)
    return replace(variant, name=f"{variant.name}, compiled", role=ROLE, call=call, needs=needs)


def missing(device: torch.device) -> str:
    """What torch.compile needs and this machine lacks, or ""."""
    if device.type == "cpu":
        compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
        return "" if any(name and shutil.which(name) for name in compilers) else "needs a C++ compiler"
    if device.type in ("cuda", "xpu"):
        return "" if importlib.util.find_spec("triton") else "needs triton"
    return f"is not compiled on {device.type}"


def _compile(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, compiled for each shape when it is first called with it."""

    def run(*inputs: Any) -> Any:
        return call(*inputs)

    # What was compiled is kept by code object. With its own, a call does not look through that of all others.
    own = types.FunctionType(run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__)
    compiled: Callable[..., Any] = torch.compile(own, dynamic=False)
    return compiled


@contextlib.contextmanager
def compiler() -> Iterator[None]:
    """The compiler's settings while something is measured."""
    import torch._dynamo
    import torch._inductor.config

    with (
        torch._dynamo.config.patch(recompile_limit=_SHAPES, accumulated_recompile_limit=_SHAPES),
        torch._inductor.config.patch(
            {
                # No processes that wait for work during the measurement.
                "compile_threads": 1,
                # The threads that are set when it runs, not those when it was compiled.
                "cpp.dynamic_threads": True,
            }
        ),
    ):
        yield


def graphs() -> int:
    """How many graphs have been compiled so far: a function of which none is made runs as it is written."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
