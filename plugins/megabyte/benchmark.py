"""Times a training step, and compares generation with a plain decoder at equal computation per byte."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..gpt2 import GPT2
from .experiment import GLOBAL, ONE_LAYER, PATCH, PLAIN
from .model import BYTES, Megabyte


def choose_by_rule(logits: Tensor) -> Tensor:
    """The most likely byte. The time per step does not depend on the choice."""
    return logits.argmax(-1)


def write(network: Megabyte, ids: Tensor, count: int) -> dict[str, Any]:
    written = network.generate(ids, count // network.patch, choose_by_rule)
    return {"reached": True, "bytes": written.shape[1] - ids.shape[1]}


@torch.no_grad()
def write_plainly(network: GPT2, ids: Tensor, count: int) -> dict[str, Any]:
    """Generation with a KV cache, which chooses bytes as `write` does."""
    cache = network.empty_cache(len(ids), ids.shape[1] + count)
    last = choose_by_rule(network(ids, cache)[:, -1:])
    for _ in range(count - 1):
        last = choose_by_rule(network(last, cache)[:, -1:])
    return {"reached": True, "bytes": count}


def write_anew(network: GPT2, ids: Tensor, count: int) -> dict[str, Any]:
    """Generation without a KV cache."""
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat((ids, network(ids)[:, -1:].argmax(-1)), 1)
    return {"reached": True, "bytes": count}


def by_loops(network: Megabyte, ids: Tensor) -> Tensor:
    """The loss, computed patch by patch. The global model reads all previous patches again for each patch."""
    total = []
    patched = ids.unflatten(1, (-1, network.patch))
    for number in range(patched.shape[1]):
        said = network.across_patches(network.embed_patches(patched[:, : number + 1], 0))[:, -1]
        before = torch.cat(
            (network.first_byte.expand(len(ids), 1, -1), network.local_bytes(patched[:, number, :-1])), 1
        )
        logits = network.within_patches(said + before + network.local_positions)
        total.append(F.cross_entropy(logits.flatten(0, 1), patched[:, number].flatten()))
    return torch.stack(total).mean()


def fused(network: Megabyte, ids: Tensor) -> Tensor:
    """The loss of the same model with torch's fused attention in every block."""
    for block in (*network.global_blocks, *network.local_blocks):
        block.attention.attend = lambda q, k, v, *, causal: F.scaled_dot_product_attention(
            q, k, v, is_causal=causal
        )
    return network.loss(ids)


def training_cost(batch: int, window: int, shape: dict[str, Any], itemsize: int) -> dict[str, Cost]:
    """FLOPs of matrix multiplications. Attention counts only the pairs that the causal mask allows."""
    (many, few), size = shape["layers"], shape["patch"]
    wide, narrow, patches = shape["D_G"], shape["D_L"], window // shape["patch"]
    across = patches * 12 * wide**2 + patches * (patches + 1) * wide
    within = window * 12 * narrow**2 + patches * size * (size + 1) * narrow
    ends = window * (wide // size * narrow + narrow * BYTES)
    weights = (
        many * 12 * wide**2 + few * 12 * narrow**2 + wide // size * (narrow + BYTES) + 2 * narrow * BYTES
    )
    return Cost.products(2 * batch * (many * across + few * within + ends), weights * itemsize)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    shape = bench.pick(smoke={**GLOBAL, "D_G": 16, "D_L": 12}, quick=GLOBAL, full=GLOBAL)
    for window in bench.pick(smoke=(16,), quick=(64, 256), full=(256, 1024)):
        make = partial(Megabyte, patches=window // PATCH, **shape)
        yield Case.of_module(
            make,
            name="a training step",
            axes={"bytes": window},
            inputs=lambda g, window=window: (torch.randint(BYTES, (2, window), generator=g),),
            variants=(
                Variant.of_module(make, by_loops, name="patch by patch", role="naive"),
                Variant.of_module(make, fused, name="torch SDPA in each block", role="strong"),
                Variant.of_module(make, Megabyte.loss, name="Megabyte", role="paper"),
            ),
            cost=training_cost(2, window, shape, bench.dtype.itemsize),
        )
    known, count = bench.pick(smoke=(8, 8), quick=(192, 64), full=(4032, 64))
    ours = Megabyte(patches=(known + count) // PATCH, **shape).to(bench.device, bench.dtype)
    plain, wide = (
        GPT2(BYTES, context=known + count, **sizes).to(bench.device, bench.dtype)
        for sizes in (PLAIN, ONE_LAYER)
    )
    yield Case(
        name="64 bytes written",
        axes={"bytes before": known},
        inputs=lambda g: (torch.randint(BYTES, (1, known), generator=g), count),
        variants=(
            Variant(name="a plain model, no cache", role="naive", call=partial(write_anew, plain)),
            Variant(name="a plain model", role="strong", call=partial(write_plainly, plain)),
            Variant(name="a plain model of one layer", role="strong", call=partial(write_plainly, wide)),
            Variant(name="Megabyte", role="paper", call=partial(write, ours)),
        ),
        cost={"until": None},
    )
