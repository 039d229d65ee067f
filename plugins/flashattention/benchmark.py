"""Times tiled attention in PyTorch and in Triton against standard attention and torch's fused attention."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .baselines import chunked_attention, compiled, flex, sdpa, sdpa_with, standard_attention
from .model import HALF, fused
from .tiled import tiled_attention


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    # As in the papers, a batch has the same number of tokens for every length. On a GPU it has 16,384 tokens
    # with hidden size 2,048.
    on_cpu = bench.device.type == "cpu"
    whole = (512, 1024, 2048, 4096) if on_cpu else (512, 2048, 4096, 8192, 16_384)
    lengths = bench.pick(smoke=(48,), quick=(512, 2048), full=whole)
    width = bench.pick(smoke=128, quick=256, full=512 if on_cpu else 2048)
    for dim in bench.pick(smoke=(64,), quick=(64,), full=(64, 128)):
        for causal in (False, True):
            for tokens in lengths:
                batch = bench.pick(smoke=1, quick=1, full=lengths[-1] // tokens)
                yield case(bench, "attention", (batch, width // dim, tokens, dim), causal=causal)
    # With such large scores, many weights are subnormal numbers, which are slow on CPUs.
    shape = bench.pick(smoke=(1, 2, 48, 64), quick=(1, 4, 512, 64), full=(1, 8, 2048, 64))
    yield case(bench, "attention", shape, causal=True, spread=30.0)
    for tokens in bench.pick(smoke=(48,), quick=(), full=(1024, 4096)):
        shape = bench.pick(smoke=1, quick=1, full=lengths[-1] // tokens), width // 64, tokens, 64
        yield case(bench, "grouped-query attention", shape, causal=True, kv_heads=shape[1] // 2)
        yield case(bench, "windowed attention", shape, causal=True, window=tokens // 8)


def case(
    bench: Bench,
    name: str,
    shape: tuple[int, int, int, int],
    *,
    causal: bool,
    kv_heads: int | None = None,
    window: int | None = None,
    spread: float = 1.0,
) -> Case:
    """`spread` is the standard deviation of the scores."""
    batch, heads, tokens, dim = shape
    kv_shape = batch, kv_heads or heads, tokens, dim
    how = {"causal": causal, "window": window}
    in_triton = bench.needs("cuda", "triton")
    if not in_triton and bench.dtype not in HALF:
        in_triton = "needs float16 or bfloat16"

    def inputs(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (torch.randn(s, generator=generator) for s in (shape, kv_shape, kv_shape))
        return spread * q, k, v

    return Case(
        name=name,
        axes={"tokens": tokens, "dim": dim, "causal": causal, "spread of scores": spread},
        inputs=inputs,
        variants=(
            Variant(name="equation 1", role="naive", call=partial(standard_attention, **how)),
            Variant(name="torch SDPA", role="strong", call=partial(sdpa, **how)),
            *(
                Variant(
                    name=f"torch SDPA, {backend}",
                    role="strong",
                    call=partial(sdpa_with, backend, **how),
                    needs=bench.needs("cuda") or ("a backend without windows" if window else ""),
                )
                for backend in ("cuDNN", "flash")
            ),
            Variant(
                name="rows in chunks",
                role="strong",
                call=partial(chunked_attention, rows=64, causal=causal),
                needs="a computation without windows" if window else "",
            ),
            # On a CPU, compiling would take longer than the measurement.
            Variant(
                name="equation 1, compiled",
                role="compiled",
                call=partial(compiled, **how),
                needs=bench.needs("cuda"),
            ),
            Variant(
                name="FlexAttention", role="compiled", call=partial(flex, **how), needs=bench.needs("cuda")
            ),
            Variant(name="tiled (PyTorch)", role="paper", call=partial(tiled_attention, **how)),
            Variant(name="tiled (Triton)", role="paper", call=partial(fused, **how), needs=in_triton),
        ),
        # For longer sequences, a whole float64 matrix would take tens of gigabytes.
        oracle=partial(chunked_attention, rows=512, causal=causal) if tokens > 4096 and not window else None,
        cost=Cost.attention(
            *shape, kv_heads=kv_heads, causal=causal, window=window, itemsize=bench.dtype.itemsize
        ),
    )
