"""Times the scores of all explanations, and the explanation of a model's neurons from text on."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..gpt2 import GPT2
from .model import activations_of, correlations

Weights = Mapping[str, Tensor]


def one_by_one(activations: Tensor, predicates: Tensor) -> Tensor:
    single = torch.promote_types(activations.dtype, torch.float32)
    a, b = activations.to(single), predicates.to(single)
    rows = [torch.corrcoef(torch.cat((column[None], b.T)))[0, 1:] for column in a.unbind(1)]
    return torch.stack(rows).to(activations.dtype)


def standardised(activations: Tensor, predicates: Tensor) -> Tensor:
    single = torch.promote_types(activations.dtype, torch.float32)
    a, b = ((t - t.mean(0)) / t.std(0, correction=0) for t in (activations.to(single), predicates.to(single)))
    return (a.T @ b / len(a)).to(activations.dtype)


def window_by_window(model: GPT2, ids: Tensor, predicates: Tensor) -> Tensor:
    seen = torch.cat([activations_of(model, window) for window in ids.split(1)])
    return correlations(seen, predicates.to(seen))


def with_hooks(model: GPT2, ids: Tensor, predicates: Tensor) -> Tensor:
    seen = activations_of(model, ids)
    return correlations(seen, predicates.to(seen))


def up_to_the_last_neuron(w: Weights, ids: Tensor, predicates: Tensor, *, heads: int) -> Tensor:
    """The model from torch's functions. It ends at the neurons of the last block, and computes no logits."""

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    ids, seen = ids[:, :-1], list[Tensor]()
    x = F.embedding(ids, w["tokens.weight"]) + w["positions.weight"][: ids.shape[1]]
    layers = len({name.split(".")[1] for name in w if name.startswith("blocks.")})
    for layer in range(layers):
        name = f"blocks.{layer}"
        qkv = linear(f"{name}.attention.qkv", norm(f"{name}.norms.0", x))
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(f"{name}.attention.output", mixed)
        hidden = linear(f"{name}.feed_forward.0", norm(f"{name}.norms.1", x))
        hidden = F.gelu(hidden, approximate="tanh")
        seen.append(hidden.flatten(0, 1))
        if layer + 1 < layers:
            x = x + linear(f"{name}.feed_forward.2", hidden)
    activations = torch.cat(seen, 1).float().cpu()
    return standardised(activations, predicates.to(activations))


def neuron_case(bench: Bench) -> Case:
    windows, time, vocab, width, layers, count = bench.pick(
        smoke=(3, 5, 7, 8, 2, 4), quick=(40, 48, 60, 64, 2, 1000), full=(600, 48, 60, 128, 2, 1000)
    )
    heads = 2
    make = partial(GPT2, vocab, context=time, model=width, heads=heads, layers=layers)
    tokens, neurons = windows * time, layers * 4 * width
    products = tokens * layers * width * (12 * width + 2 * time) + tokens * neurons * count
    return Case.of_module(
        make,
        name="neurons explained",
        axes={"neurons": neurons, "tokens": tokens, "predicates": count},
        inputs=lambda g: (
            torch.randint(vocab, (windows, time + 1), generator=g),
            torch.rand(tokens, count, generator=g).lt(0.4).float(),
        ),
        variants=(
            Variant.of_module(make, window_by_window, name="window by window", role="naive"),
            Variant(
                name="torch SDPA, no logits",
                role="strong",
                call=partial(up_to_the_last_neuron, heads=heads),
            ),
            Variant.of_module(make, with_hooks, name="hooks, one product", role="paper"),
        ),
        tolerance=1e-4 if bench.dtype.itemsize >= 4 else None,  # activations are stored in float32
        cost={
            "forward": Cost(
                flops=2 * products, bytes=(tokens * count + neurons * count) * bench.dtype.itemsize
            )
        },
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((20, 3, 4),), quick=((2000, 64, 200), (8000, 256, 400)), full=((50_000, 1000, 1000),)
    )
    for tokens, neurons, count in sizes:
        moved = tokens * (neurons + count) + neurons * count
        yield Case(
            name="score all explanations",
            axes={"tokens": tokens, "neurons": neurons, "predicates": count},
            inputs=lambda generator, tokens=tokens, neurons=neurons, count=count: (
                torch.randn(tokens, neurons, generator=generator) + 1,
                torch.rand(tokens, count, generator=generator).lt(0.4).float(),
            ),
            variants=(
                Variant(name="one by one", role="naive", call=one_by_one),
                Variant(name="standardised", role="strong", call=standardised),
                Variant(name="one product", role="paper", call=correlations),
            ),
            cost={"forward": Cost(flops=2 * tokens * neurons * count, bytes=moved * bench.dtype.itemsize)},
        )
    yield neuron_case(bench)
