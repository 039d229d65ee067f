"""The paper's own code under torch.compile: does the compiler make the idea unnecessary?"""

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
_SHAPES = (
    1000  # maximum number of shapes per function. Beyond the default of 8, torch silently runs it uncompiled
)


def with_compiled(case: Case, device: torch.device) -> Case:
    """The case with a compiled variant after each of the paper's variants, if a mode can be compiled."""
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
    """The missing requirement of torch.compile on this machine, or ""."""
    if device.type == "cpu":
        compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
        return "" if any(name and shutil.which(name) for name in compilers) else "needs a C++ compiler"
    if device.type in ("cuda", "xpu"):
        return "" if importlib.util.find_spec("triton") else "needs triton"
    return f"is not compiled on {device.type}"


def _compile(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, compiled for each input shape when it is first called with that shape."""

    def run(*inputs: Any) -> Any:
        return call(*inputs)

    # Compiled code is stored per code object. A separate object avoids a search through the code of all other
    # calls.
    own = types.FunctionType(run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__)
    compiled: Callable[..., Any] = torch.compile(own, dynamic=False)
    return compiled


@contextlib.contextmanager
def compiler() -> Iterator[None]:
    """The compiler's settings during measurements."""
    import torch._dynamo
    import torch._inductor.config

    with (
        torch._dynamo.config.patch(recompile_limit=_SHAPES, accumulated_recompile_limit=_SHAPES),
        torch._inductor.config.patch(
            {
                # No compiler processes may wait for work during the measurement.
                "compile_threads": 1,
                # Use the number of threads at run time, not at compile time.
                "cpp.dynamic_threads": True,
            }
        ),
    ):
        yield


def graphs() -> int:
    """Number of graphs compiled so far. A function without a graph runs uncompiled."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
