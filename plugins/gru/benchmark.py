"""Times a GRU layer step by step, with all inputs projected first, and with our own backward pass."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Variant, hookimpl

from ..rnn import cost, layer_inputs
from .model import unroll, unroll_fast


def step_by_step(
    x: Tensor,
    h: Tensor,
    input_weight: Tensor,
    recurrent_weight: Tensor,
    bias: Tensor,
    *,
    reset_after: bool = False,
) -> Tensor:
    """The equations as written, with a separate multiplication for every matrix at every step."""
    (w_r, w_z, w_n), (u_r, u_z, u_n), (b_r, b_z, b_n) = (
        tensor.chunk(3) for tensor in (input_weight, recurrent_weight, bias)
    )
    states = []
    for t in range(x.shape[1]):
        r = torch.sigmoid(F.linear(x[:, t], w_r, b_r) + h @ u_r.T)
        z = torch.sigmoid(F.linear(x[:, t], w_z, b_z) + h @ u_z.T)
        n = torch.tanh(F.linear(x[:, t], w_n, b_n) + (r * (h @ u_n.T) if reset_after else (r * h) @ u_n.T))
        h = z * h + (1 - z) * n
        states.append(h)
    return torch.stack(states, 1)


def torchs(x: Tensor, h: Tensor, input_weight: Tensor, recurrent_weight: Tensor, bias: Tensor) -> Tensor:
    """The function behind `nn.GRU`, which applies the reset gate after the matrix multiplication."""
    weights = input_weight, recurrent_weight, bias, torch.zeros_like(bias)
    return torch.gru(x, h[None], weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)[0]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, inputs = bench.pick(smoke=(2, 3), quick=(32, 64), full=(64, 128))
    sizes = bench.pick(
        smoke=((4, 5),), quick=((50, 64), (50, 256)), full=((100, 64), (100, 256), (100, 1024), (1000, 256))
    )
    for time, hidden in sizes:
        work = cost(batch, time, inputs, hidden, gates=3, itemsize=bench.dtype.itemsize)
        drawn = partial(layer_inputs, batch=batch, time=time, inputs=inputs, hidden=hidden, gates=3)
        yield Case(
            name="recurrent layer",
            axes={"hidden": hidden, "time": time},
            inputs=drawn,
            variants=(
                Variant(name="step by step", role="naive", call=step_by_step),
                Variant(name="inputs first", role="strong", call=unroll),
                Variant(name="own backward", role="paper", call=lambda *given: unroll_fast(*given)[0]),
            ),
            cost=work,
        )
        yield Case(
            name="reset gate after the matrix",
            axes={"hidden": hidden, "time": time},
            inputs=drawn,
            variants=(
                Variant(name="step by step", role="naive", call=partial(step_by_step, reset_after=True)),
                Variant(name="nn.GRU", role="strong", call=torchs),
                Variant(name="inputs first", role="paper", call=partial(unroll, reset_after=True)),
            ),
            cost=work,
        )
