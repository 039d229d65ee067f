"""Times a pre-training step with our attention and with torch's, and generation in bytes and in tokens."""

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..attention import merge_heads, split_heads
from ..t5.benchmark import drawn_weight, formula
from ..t5.benchmark import fused as scaled
from ..t5.model import Attention
from .model import VOCAB, ByT5

BYTES_A_TOKEN = 4


def attended_by(attend: Any, network: ByT5, source: Tensor, target: Tensor) -> Tensor:
    """The loss with `attend` in place of softmax(q kᵀ + bias) v in every layer."""
    for part in network.modules():
        if isinstance(part, Attention):
            part.forward = partial(other_attention, part, attend)
    return network.loss(source, target)


def other_attention(
    part: Attention, attend: Any, x: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor | None
) -> Tensor:
    return part.output(merge_heads(attend(split_heads(part.query(x), part.heads), *kv, bias)))


def answer(network: ByT5, source: Tensor, count: int) -> dict[str, Any]:
    """Read `source` and generate `count` bytes or tokens, whose values do not matter, with a KV cache."""
    return {"reached": True, "ids": network.generate(source, count).shape[1]}


def cost(batch: int, source: int, target: int, sizes: dict[str, Any], vocab: int) -> tuple[int, int]:
    """FLOPs of the forward pass's matrix multiplications (unmasked pairs only), and the number of weights."""
    model, hidden, inner = sizes["model"], sizes["hidden"], sizes["heads"] * sizes["dim"]
    deep, shallow = sizes["layers"]
    layer = 4 * model * inner + 3 * model * hidden
    encoder = source * layer + 2 * source**2 * inner
    decoder = target * (layer + 2 * model * inner) + 2 * source * model * inner
    decoder += (target * (target + 1) + 2 * target * source) * inner
    products = deep * encoder + shallow * decoder + target * vocab * model
    weights = deep * (layer + 2 * model) + shallow * (layer + 4 * model * inner + 3 * model)
    return 2 * batch * products, weights + 2 * (vocab + 1) * model + 64 * sizes["heads"]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    tiny = {"model": 16, "heads": 2, "dim": 8, "hidden": 32, "layers": (2, 1)}
    some = {"model": 192, "heads": 4, "dim": 48, "hidden": 512, "layers": (6, 2)}
    small = {"model": 1472, "heads": 6, "dim": 64, "hidden": 3584, "layers": (12, 4)}
    sizes: dict[str, Any] = bench.pick(smoke=tiny, quick=some, full=small)
    make = partial(ByT5, VOCAB, dropout=0.0, **sizes)

    def drawn(g: torch.Generator, rows: int, ids: int) -> Tensor:
        return torch.randint(VOCAB, (rows, ids), generator=g)

    batch = bench.pick(smoke=2, quick=2, full=8)
    for source, target in bench.pick(smoke=((20, 9),), quick=((112, 22), (448, 78)), full=((1024, 189),)):
        flops, weights = cost(batch, source, target, sizes, VOCAB)
        yield Case.of_module(
            make,
            name="spans of bytes",
            axes={"source": source, "target": target},
            weight=partial(drawn_weight, dim=sizes["dim"]),
            inputs=lambda g, s=source, t=target: (drawn(g, batch, s), drawn(g, batch, t)),
            variants=(
                Variant.of_module(make, partial(attended_by, formula), name="head by head", role="naive"),
                Variant.of_module(make, partial(attended_by, scaled), name="torch SDPA", role="strong"),
                Variant.of_module(make, ByT5.loss, name="ByT5", role="paper"),
            ),
            cost=Cost.products(flops, weights * bench.dtype.itemsize),
        )
    read, written = bench.pick(smoke=(16, 8), quick=(512, 64), full=(1024, 128))
    most, total = sizes["layers"][0], sum(sizes["layers"])
    vocab = bench.pick(smoke=VOCAB, quick=4096, full=32_128)

    @cache
    def built(vocab: int, deep: int, shallow: int) -> ByT5:
        network = ByT5(vocab, dropout=0.0, **{**sizes, "layers": (deep, shallow)})
        return network.to(bench.device, bench.dtype).eval()

    def in_bytes(source: Tensor, count: int, *, deep: int) -> dict[str, Any]:
        return answer(built(VOCAB, deep, total - deep), source, count)

    def in_tokens(source: Tensor, count: int) -> dict[str, Any]:
        network = built(vocab, *sizes["layers"])
        return answer(network, source[:, ::BYTES_A_TOKEN], count // BYTES_A_TOKEN)

    yield Case(
        name="an answer written",
        axes={"bytes read": read, "bytes written": written},
        inputs=lambda g: (drawn(g, 1, read), written),
        variants=(
            Variant(name="bytes, both sides as deep", role="naive", call=partial(in_bytes, deep=total // 2)),
            Variant(name="tokens of 4 bytes", role="strong", call=in_tokens),
            Variant(name="bytes, a deep encoder", role="paper", call=partial(in_bytes, deep=most)),
        ),
        cost={"until": None},
    )
