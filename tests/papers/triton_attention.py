"""Run by `test_flashattention_triton` in a separate process, because Triton decides on import whether to use
its interpreter. Prints one JSON document.

shapes   results and gradients of each shape compared with equation 1 in float64. With TRITON_INTERPRET=1 on
         the CPU, else on the GPU, in the precision that follows ("float16", "bfloat16")
configs  the same for one shape in the kernels' other configurations, and for second derivatives
compile  statistics of the kernels compiled for Ampere and Hopper, without a GPU
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget

import readtrack.papers

readtrack.papers.__path__ = [str(Path(__file__).parents[2] / "plugins")]

from readtrack.papers.flashattention import largest_errors, results, standard_attention  # noqa: E402
from readtrack.papers.flashattention import triton_kernel as kernels  # noqa: E402

KERNELS = (kernels.forward_kernel, kernels.dq_kernel, kernels.dkdv_kernel)
SQUARE = {"queries": 140, "keys": 140, "heads": 1, "kv_heads": 1, "dim": 64}


def with_errors(case: dict, dtype: torch.dtype, device: str) -> dict:
    """Largest errors of the kernels, and of the standard computation in the same precision."""
    generator = torch.Generator().manual_seed(0)
    tokens = {"q": case["queries"], "k": case["keys"], "v": case["keys"]}
    heads = {"q": case["heads"], "k": case["kv_heads"], "v": case["kv_heads"]}
    inputs = [
        (torch.randn(2, heads[name], tokens[name], case["dim"], generator=generator) * case.get("steep", 1))
        .to(device, dtype)
        .requires_grad_()
        for name in "qkv"
    ]
    grad = torch.randn(inputs[0].shape, generator=generator).to(device, dtype)
    how = {name: case[name] for name in ("causal", "window") if name in case}
    exact = all_of(standard_attention, [x.double() for x in inputs], grad.double(), how)
    ours = all_of(kernels.fused_attention, inputs, grad, how | {"engine": case["engine"]})
    theirs = all_of(standard_attention, inputs, grad, how)
    assert all(x.isfinite().all() for x in ours)
    return {
        **case,
        "dtype": str(dtype),
        "ours": largest_errors(ours, exact),
        "standard": largest_errors(theirs, exact),
    }


def all_of(attend, inputs, grad, how):
    return results(lambda q, k, v, causal: attend(q, k, v, **how), *inputs, grad, causal=False)


def second_derivatives(case: dict, device: str) -> dict:
    """Errors of the derivatives of q's gradient along random directions, with respect to q, k and v; the
    worst one.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(2, case["heads"], case["queries"], case["dim"], generator=generator).to(device)
        for _ in range(3)
    ]
    directions = [torch.randn(inputs[0].shape, generator=generator).to(device) for _ in range(2)]

    def found(attend, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        first, along = (x.to(dtype) for x in directions)
        out = attend(*leaves)
        (dq,) = torch.autograd.grad(out, leaves[0], first, create_graph=True)
        return [out.detach(), *torch.autograd.grad(dq, leaves, along)]

    how = {name: case[name] for name in ("causal", "window") if name in case}
    precision = torch.float32 if device == "cpu" else torch.bfloat16
    exact = found(lambda *x: standard_attention(*x, **how), torch.float64)
    ours = found(lambda *x: kernels.fused_attention(*x, **how, engine=False), precision)
    theirs = found(lambda *x: standard_attention(*x, **how), precision)
    return {
        **case,
        "order": 2,
        "ours": largest_errors(ours, exact),
        "standard": largest_errors(theirs, exact),
    }


def kinds(precision: str) -> tuple[str, tuple[tuple[torch.dtype, bool], ...]]:
    """The device, and the precisions with and without tensor descriptors."""
    if triton.knobs.runtime.interpret:
        # Its bfloat16 products are wrong. float32 is used only here, and shows the arithmetic.
        return "cpu", ((torch.float32, True), (torch.float16, False))
    engine = torch.cuda.get_device_capability()[0] >= 9
    return "cuda", tuple((getattr(torch, precision), e) for e in {False, engine})


def shapes(precision: str = "") -> list[dict]:
    device, pairs = kinds(precision)
    square = SQUARE | {"heads": 2, "kv_heads": 2}
    found = [
        square,
        square | {"causal": True},
        square | {"causal": True, "dim": 128, "queries": 130, "keys": 130},
        square | {"keys": 170, "kv_heads": 1},
        # The diagonal leaves a block of keys one before its end, and enters one at its beginning.
        square | {"keys": 202, "kv_heads": 1, "causal": True},
        square | {"keys": 141, "causal": True},
        square | {"queries": 170, "kv_heads": 1, "causal": True},  # some queries see nothing
        square | {"queries": 1, "keys": 70, "causal": True},
        square | {"queries": 150, "keys": 170, "causal": True, "window": 40},
        square | {"queries": 260, "keys": 260, "causal": True, "window": 100},
        square | {"steep": 6},  # logits in the hundreds, so maxima increase by large amounts
    ]
    for kernel in KERNELS:  # the other configurations would only cost compilation time
        kernel.configs = kernel.configs[:1]
    return [
        with_errors(shape | {"engine": engine}, dtype, device) for shape in found for dtype, engine in pairs
    ]


def configs(precision: str = "") -> list[dict]:
    """Each case takes the next configuration of every kernel, or the first of one that has no more."""
    device, pairs = kinds(precision)
    dtype, engine = pairs[0]
    declared = [kernel.configs for kernel in KERNELS]
    found = []
    for others in zip_longest(*(each[1:] for each in declared)):
        chosen = [config or first for config, (first, *_) in zip(others, declared, strict=True)]
        for kernel, config in zip(KERNELS, chosen, strict=True):
            kernel.configs = [config]
        case = SQUARE | {"causal": True, "engine": engine, "config": [str(config) for config in chosen]}
        found.append(with_errors(case, dtype, device))
    for kernel, (first, *_) in zip(KERNELS, declared, strict=True):
        kernel.configs = [first]
    return [*found, second_derivatives(SQUARE | {"causal": True, "window": 40}, device)]


class Absent:
    """A driver for an absent GPU, sufficient for compiling but not for launching."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def compile_all() -> list[dict]:
    return [
        measured
        for capability in (80, 90)
        for dim, dtype in ((64, torch.bfloat16), (128, torch.float16))
        for measured in compiled(capability, dtype, dim)
    ]


def compiled(capability: int, dtype: torch.dtype, dim: int) -> Iterator[dict]:
    """The kernels in their first configuration, with the arguments for an odd length and shared heads."""
    triton.runtime.driver.set_active(Absent(capability))
    engine = capability >= 90
    q, k = torch.empty(4, 201, dim, dtype=dtype), torch.empty(2, 201, dim, dtype=dtype)
    rows = torch.empty(4, 201)
    settings = (1.0, 201, 201, 2, dim, True, 0, engine)
    calls = (
        (kernels.forward_kernel, (q, k, k, q), (rows,)),
        (kernels.dq_kernel, (q, k, k, q, q, q), (rows, rows)),
        (kernels.dkdv_kernel, (q, k, k, q, k, k), (rows, rows)),
    )
    for kernel, moved, numbers in calls:
        arguments = (*kernels.tiles(engine, *moved), *numbers, *settings)
        config = kernel.configs[0]
        config.pre_hook(dict(zip(kernel.arg_names, arguments, strict=False)) | config.kwargs)
        binary = kernel.fn.warmup(*arguments, grid=(1,), **config.all_kwargs())
        ptx = binary.asm["ptx"]
        yield {
            "kernel": kernel.fn.__name__,
            "capability": capability,
            "dim": dim,
            "shared_bytes": binary.metadata.shared,
            "spilled_bytes": stack_bytes(binary.asm["cubin"]),
            "tensor_cores": ptx.count("wgmma.mma_async") if engine else ptx.count("mma.sync"),
            "copies": ptx.count("cp.async.bulk.tensor")
            if engine
            else len(re.findall(r"cp\.async\.c[ag]", ptx)),
        }


def stack_bytes(cubin: bytes) -> int:
    """Bytes of register spills."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return int(re.search(r"STACK:(\d+)", usage)[1])


print(json.dumps({"shapes": shapes, "configs": configs, "compile": compile_all}[sys.argv[1]](*sys.argv[2:])))
