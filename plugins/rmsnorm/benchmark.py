"""Times RMSNorm against its formula, torch's RMSNorm and layer normalisation, both alone and in a network."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..layernorm import layer_norm
from .model import line_by_line, rms_norm

EPS = 1e-6


def cost(shape: tuple[int, ...], itemsize: int) -> dict[str, Cost]:
    """The cost for x of `shape`. Gain and bias are small in comparison and are not counted."""
    values = math.prod(shape)
    # Operations per value in the forward pass: 2 for squaring and adding, 1 for the scale, 1 for the gain. In
    # the backward pass: 3 for the gain's gradient, 1 for the gain, 2 for the product with x, 1 for the scale,
    # 2 for subtracting. The forward pass reads x and writes y. The backward pass also reads and writes a
    # gradient.
    return {
        "forward": Cost(flops=4 * values, bytes=2 * values * itemsize),
        "forward+backward": Cost(flops=13 * values, bytes=4 * values * itemsize),
    }


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    tokens = bench.pick(smoke=4, quick=1024, full=8192)
    for features in bench.pick(smoke=(8,), quick=(256, 1024), full=(1024, 4096, 8192)):
        work = cost((tokens, features), bench.dtype.itemsize)
        yield alone(tokens, features, work)
        yield instead(tokens, features, work)
    batch, steps, width = bench.pick(smoke=(2, 3, 4), quick=(64, 16, 256), full=(64, 64, 512))
    yield in_a_network(batch, steps, width, bench.dtype.itemsize)


def alone(tokens: int, features: int, work: dict[str, Cost]) -> Case:
    def inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random vectors, of which only the first is close to zero."""
        x = torch.randn(tokens, features, generator=generator) * 3 + 2
        x[0] *= 0.01
        return x, torch.rand(features, generator=generator) + 0.5

    return Case(
        name="RMSNorm",
        axes={"features": features, "tokens": tokens},
        inputs=inputs,
        variants=(
            Variant(name="line by line", role="naive", call=line_by_line),
            Variant(
                name="torch rms_norm",
                role="strong",
                call=lambda x, weight: F.rms_norm(x, x.shape[-1:], weight, EPS),
            ),
            Variant(name="one gradient", role="paper", call=rms_norm),
        ),
        cost=work,
    )


Norm = Callable[[Tensor, Tensor, Tensor], Tensor]  # maps x, gain and bias to the result
_LAYER_NORM: Norm = partial(layer_norm, eps=EPS)


def _torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPS)


def instead(tokens: int, features: int, work: dict[str, Cost]) -> Case:
    """Compare both norms on vectors of mean 0, for which they agree."""

    def centre(half: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        # The mean is exactly 0 in every precision, and the gradients through the mean cancel in `half`.
        return torch.cat((half, -half), -1), weight, bias

    return Case(
        name="instead of layer norm",
        axes={"features": features, "tokens": tokens},
        inputs=lambda generator: (
            torch.randn(tokens, features // 2, generator=generator),
            torch.rand(features, generator=generator) + 0.5,
            torch.zeros(features),
        ),
        variants=(
            Variant(name="layer norm", role="naive", call=_LAYER_NORM, prepare=centre),
            Variant(name="torch layer_norm", role="strong", call=_torchs, prepare=centre),
            Variant(
                name="RMSNorm",
                role="paper",
                call=lambda x, weight, bias: rms_norm(x, weight, eps=EPS),
                prepare=centre,
            ),
        ),
        cost=work,
        gradients=(0, 1),
    )


def in_a_network(batch: int, steps: int, width: int, itemsize: int) -> Case:
    """Equation 4 of the layer normalisation paper, with a bias after RMSNorm. Pre-activations have mean 0."""
    inputs = 4

    def centre(
        x: Tensor, from_input: Tensor, from_state: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, ...]:
        return x, from_input - from_input.mean(0), from_state - from_state.mean(0), weight, bias

    def made(generator: torch.Generator) -> tuple[Tensor, ...]:
        return (
            torch.randn(batch, steps, inputs, generator=generator),
            torch.randn(width, inputs, generator=generator) / inputs**0.5,
            torch.randn(width, width, generator=generator) / width**0.5,
            torch.rand(width, generator=generator) + 0.5,
            torch.randn(width, generator=generator) * 0.1,
        )

    numbers = batch * steps * inputs + width * (inputs + width + 2) + batch * width
    return Case(
        name="a recurrent network",
        axes={"width": width, "steps": steps, "batch": batch},
        inputs=made,
        variants=(
            Variant(name="layer norm", role="naive", call=partial(recurrent, _LAYER_NORM), prepare=centre),
            Variant(name="torch layer_norm", role="strong", call=partial(recurrent, _torchs), prepare=centre),
            Variant(
                name="RMSNorm",
                role="paper",
                call=partial(recurrent, lambda x, weight, bias: rms_norm(x, weight, eps=EPS) + bias),
                prepare=centre,
            ),
        ),
        cost=Cost.products(2 * batch * steps * width * (inputs + width), numbers * itemsize),
    )


def recurrent(
    norm: Norm,
    x: Float[Tensor, "batch steps inputs"],
    from_input: Float[Tensor, "width inputs"],
    from_state: Float[Tensor, "width width"],
    weight: Float[Tensor, " width"],
    bias: Float[Tensor, " width"],
) -> Float[Tensor, "batch width"]:
    """The last hidden state."""
    seen = x @ from_input.T
    h = torch.zeros_like(seen[:, 0])
    for x_t in seen.unbind(1):
        h = torch.tanh(norm(h @ from_state.T + x_t, weight, bias))
    return h
