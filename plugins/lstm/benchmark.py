"""Times a layer over a whole sequence: with autograd's backward pass, with ours, and with `nn.LSTM`."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Variant, hookimpl

from ..rnn import cost, layer_inputs
from .model import unroll, unroll_fast


def torchs(
    x: Tensor, h: Tensor, c: Tensor, input_weight: Tensor, recurrent_weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The function behind `nn.LSTM`."""
    weights = input_weight, recurrent_weight, bias, torch.zeros_like(bias)
    training = torch.is_grad_enabled()
    states, _, c = torch.lstm(x, (h[None], c[None]), weights, True, 1, 0.0, training, False, True)
    return states, c[0]


def with_cell(generator: torch.Generator, **sizes: int) -> tuple[Tensor, ...]:
    x, h, *weights = layer_inputs(generator, gates=4, **sizes)
    return x, h, torch.randn(h.shape, generator=generator), *weights


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, inputs = bench.pick(smoke=(2, 3), quick=(32, 64), full=(64, 128))
    sizes = bench.pick(
        smoke=((4, 5),), quick=((50, 64), (50, 256)), full=((100, 64), (100, 256), (100, 1024), (1000, 256))
    )
    for time, hidden in sizes:
        yield Case(
            name="recurrent layer",
            axes={"hidden": hidden, "time": time},
            inputs=partial(with_cell, batch=batch, time=time, inputs=inputs, hidden=hidden),
            variants=(
                Variant(name="step by step", role="naive", call=unroll),
                Variant(name="nn.LSTM", role="strong", call=torchs),
                Variant(name="own backward", role="paper", call=unroll_fast),
            ),
            oracle=unroll,
            cost=cost(batch, time, inputs, hidden, gates=4, itemsize=bench.dtype.itemsize),
        )
