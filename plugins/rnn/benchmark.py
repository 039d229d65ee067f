"""Times a recurrent layer on a whole sequence, computed step by step, by our version, or by torch."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import unroll


def step_by_step(
    x: Float[Tensor, "batch time inputs"],
    state: Float[Tensor, "batch hidden"],
    input_weight: Float[Tensor, "hidden inputs"],
    recurrent_weight: Float[Tensor, "hidden hidden"],
    bias: Float[Tensor, " hidden"],
) -> Float[Tensor, "batch time hidden"]:
    """The equation as Elman draws it: at each step, one layer on the concatenated input and state."""
    weight, states = torch.cat((input_weight, recurrent_weight), 1), []
    for t in range(x.shape[1]):
        state = torch.tanh(F.linear(torch.cat((x[:, t], state), 1), weight, bias))
        states.append(state)
    return torch.stack(states, 1)


def torchs(x: Tensor, state: Tensor, input_weight: Tensor, recurrent_weight: Tensor, bias: Tensor) -> Tensor:
    """The function behind `nn.RNN`."""
    weights = (input_weight, recurrent_weight, bias, torch.zeros_like(bias))
    return torch.rnn_tanh(x, state[None], weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)[0]


def cost(batch: int, time: int, inputs: int, hidden: int, *, gates: int, itemsize: int) -> dict[str, Cost]:
    """Cost of a recurrent layer with `gates` matrix multiplications per step, without activations."""
    flops = 2 * batch * time * gates * hidden * (inputs + hidden)
    weights, data = gates * hidden * (inputs + hidden + 1), batch * time * (inputs + hidden)
    return Cost.products(flops, (weights + data) * itemsize)


def layer_inputs(
    generator: torch.Generator, batch: int, time: int, inputs: int, hidden: int, *, gates: int
) -> tuple[Tensor, ...]:
    """x, the initial state, and weights of the usual scale."""
    shapes = (batch, time, inputs), (batch, hidden), (gates * hidden, inputs), (gates * hidden, hidden)
    x, state, *weights = (torch.randn(shape, generator=generator) for shape in (*shapes, shapes[2][:1]))
    return x, state, *(weight * hidden**-0.5 for weight in weights)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, inputs = bench.pick(smoke=(2, 3), quick=(32, 64), full=(64, 128))
    sizes = bench.pick(
        smoke=((4, 5),), quick=((50, 64), (50, 256)), full=((100, 64), (100, 256), (100, 1024), (1000, 256))
    )
    for time, hidden in sizes:
        shape = batch, time, inputs, hidden
        yield Case(
            name="recurrent layer",
            axes={"hidden": hidden, "time": time},
            inputs=partial(layer_inputs, batch=batch, time=time, inputs=inputs, hidden=hidden, gates=1),
            variants=(
                Variant(name="step by step", role="naive", call=step_by_step),
                Variant(name="nn.RNN", role="strong", call=torchs),
                Variant(name="inputs first", role="paper", call=unroll),
            ),
            oracle=step_by_step,
            cost=cost(*shape, gates=1, itemsize=bench.dtype.itemsize),
        )
