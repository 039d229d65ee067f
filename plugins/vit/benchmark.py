"""Times patch embedding, and one encoder block."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Block, patches

Weights = Mapping[str, Tensor]


def one_by_one(images: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    rows, columns = (side // size for side in images.shape[2:])
    embedded = []
    for row in range(rows):
        for column in range(columns):
            patch = images[:, :, size * row : size * (row + 1), size * column : size * (column + 1)]
            embedded.append(patch.flatten(1) @ weight.T + bias)
    return torch.stack(embedded, 1)


def strided(images: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    filters = weight.unflatten(1, (images.shape[1], size, size))
    return F.conv2d(images, filters, bias, stride=size).flatten(2).mT


def flattened(images: Tensor, weight: Tensor, bias: Tensor, size: int) -> Tensor:
    return F.linear(patches(images, size), weight, bias).flatten(1, 2)


def encoded(weights: Weights, x: Tensor, heads: int, *, fused: bool) -> Tensor:
    """The encoder block, computed from the formula or with fused PyTorch functions."""

    def norm(x: Tensor, which: int) -> Tensor:
        gain, bias = weights[f"norms.{which}.weight"], weights[f"norms.{which}.bias"]
        if fused:
            return F.layer_norm(x, x.shape[-1:], gain, bias, eps=1e-6)
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * gain + bias

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    normed = norm(x, 0)
    q, k, v = (
        linear(normed, f"attention.{name}").unflatten(-1, (heads, -1)).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    if fused:
        attended = F.scaled_dot_product_attention(q, k, v)
    else:
        attended = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    x = x + linear(attended.transpose(1, 2).flatten(2), "attention.output")
    return x + linear(F.gelu(linear(norm(x, 1), "up")), "down")


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, side, size, model = bench.pick(
        smoke=(2, 12, 4, 8), quick=(4, 224, 16, 384), full=(16, 224, 16, 768)
    )
    pixels, tokens = 3 * size**2, (side // size) ** 2
    yield Case(
        name="patches",
        axes={"side": side, "patch": size, "batch": batch},
        inputs=lambda g: (
            torch.randn(batch, 3, side, side, generator=g),
            torch.randn(model, pixels, generator=g) / pixels**0.5,
            torch.randn(model, generator=g),
        ),
        variants=(
            Variant(name="one by one", role="naive", call=partial(one_by_one, size=size)),
            Variant(name="strided convolution", role="strong", call=partial(strided, size=size)),
            Variant(name="flattened", role="paper", call=partial(flattened, size=size)),
        ),
        cost={
            "forward": Cost(
                flops=2 * batch * tokens * pixels * model,
                bytes=(batch * tokens * (pixels + model) + model * (pixels + 1)) * bench.dtype.itemsize,
            ),
        },
    )
    batch, tokens, model, heads = bench.pick(
        smoke=(2, 5, 16, 2), quick=(2, 197, 192, 3), full=(8, 197, 768, 12)
    )
    make = partial(Block, model, heads, 4 * model)
    yield Case.of_module(
        make,
        name="block",
        axes={"tokens": tokens, "width": model},
        inputs=lambda g: (torch.randn(batch, tokens, model, generator=g),),
        variants=(
            Variant(name="by the formula", role="naive", call=partial(encoded, heads=heads, fused=False)),
            Variant(
                name="torch layer norm and SDPA",
                role="strong",
                call=partial(encoded, heads=heads, fused=True),
            ),
            Variant.of_module(make, name="Block", role="paper"),
        ),
        cost=Cost.products(
            2 * batch * tokens * (12 * model**2 + 2 * tokens * model),
            (12 * model**2 + 13 * model + 2 * batch * tokens * model) * bench.dtype.itemsize,
        ),
    )
