"""Implements the GRU's equations, their hand-written backward pass, and the layer.

Dimensions: batch, time, inputs (size of an element), hidden (hidden size). The three parts of every matrix
are stacked in torch's order: r (reset), z (update), n (candidate).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Sequence = Float[Tensor, "batch time inputs"]
State = Float[Tensor, "batch hidden"]
States = Float[Tensor, "batch time hidden"]
InputWeight = Float[Tensor, "3*hidden inputs"]
RecurrentWeight = Float[Tensor, "3*hidden hidden"]
Bias = Float[Tensor, "3*hidden"]


def unroll(
    x: Sequence,
    h: State,
    input_weight: InputWeight,
    recurrent_weight: RecurrentWeight,
    bias: Bias,
    *,
    reset_after: bool = False,
) -> States:
    """Equations 5 to 8 step by step, from state h. One matrix multiplication projects all inputs.

    reset_after  apply the reset gate to the product of matrix and state, as in cuDNN and torch, instead of
                 to the state; the step's multiplications could then be joined into one
    """
    hidden = h.shape[1]
    gates, candidate = recurrent_weight[: 2 * hidden].mT, recurrent_weight[2 * hidden :].mT
    states = []
    for drive in F.linear(x, input_weight, bias).split(1, 1):
        for_gates, for_candidate = drive[:, 0].split((2 * hidden, hidden), 1)
        r, z = torch.addmm(for_gates, h, gates).sigmoid().chunk(2, 1)
        if reset_after:
            n = torch.tanh(for_candidate + r * (h @ candidate))
        else:
            n = torch.addmm(for_candidate, r * h, candidate).tanh()
        h = z * h + (1 - z) * n
        states.append(h)
    return torch.stack(states, 1)


class GatedRecurrentUnit(torch.autograd.Function):
    """`unroll` with time first and a hand-written backward pass. Returns all states and all update gates.

    The backward pass computes the derivatives of the gates for all steps at once, and the weights' gradients
    in one multiplication over all steps. Second derivatives come from autograd through `unroll`. The update
    gates carry no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "time batch inputs"],
        h: State,
        input_weight: InputWeight,
        recurrent_weight: RecurrentWeight,
        bias: Bias,
    ) -> tuple[Float[Tensor, "time batch hidden"], Float[Tensor, "time batch hidden"]]:
        ctx.save_for_backward(x, h, input_weight, recurrent_weight, bias)
        hidden = h.shape[1]
        parts = F.linear(x, input_weight, bias)
        gates, candidates = recurrent_weight.mT.contiguous().split((2 * hidden, hidden), 1)
        states = torch.cat((h[None], h.new_empty(len(x), *h.shape)))
        r, z, n = (part.unbind() for part in parts.chunk(3, 2))
        r_and_z = parts[..., : 2 * hidden].unbind()
        h = states.unbind()
        for t in range(len(x)):
            r_and_z[t].addmm_(h[t], gates).sigmoid_()
            n[t].addmm_(r[t] * h[t], candidates).tanh_()
            torch.lerp(n[t], h[t], z[t], out=h[t + 1])
        ctx.parts, ctx.states = parts, states
        updates = parts[..., hidden : 2 * hidden].clone()
        ctx.mark_non_differentiable(updates)
        return states[1:].clone(), updates

    @staticmethod
    def backward(ctx: Any, dstates: Tensor, _updates: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients themselves are differentiated
            return unroll_again(inputs, dstates)
        x, _, input_weight, recurrent_weight, _ = inputs
        before = ctx.states[:-1]
        hidden = before.shape[2]
        r, z, n = ctx.parts.chunk(3, 2)
        slopes = torch.empty_like(ctx.parts)  # derivatives of the gates' pre-activations
        dr, dz, dn = slopes.chunk(3, 2)
        torch.mul(r * (1 - r), before, out=dr)
        torch.mul(z * (1 - z), before - n, out=dz)
        torch.mul(1 - n * n, 1 - z, out=dn)

        gates, candidates = recurrent_weight.split((2 * hidden, hidden))
        dh = torch.zeros_like(before[0])
        r_and_z = slopes[..., : 2 * hidden]
        backwards = (tensor.unbind()[::-1] for tensor in (dstates, r, z, dr, dz, dn, r_and_z))
        for arriving, reset, kept, to_r, to_z, to_n, to_gates in zip(*backwards, strict=True):
            dh.add_(arriving)
            to_n.mul_(dh)
            to_z.mul_(dh)
            through_reset = to_n @ candidates
            to_r.mul_(through_reset)
            dh.mul_(kept).addcmul_(through_reset, reset).addmm_(to_gates, gates)
        rows, flat = slopes.flatten(0, 1), before.flatten(0, 1)
        seen = torch.cat(
            (rows[:, : 2 * hidden].mT @ flat, rows[:, 2 * hidden :].mT @ (r.flatten(0, 1) * flat))
        )
        return slopes @ input_weight, dh, rows.mT @ x.flatten(0, 1), seen, rows.sum(0)


def unroll_again(inputs: tuple[Tensor, ...], dstates: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the `inputs` that need one, by autograd through `unroll`, with their graph."""
    x, *others = inputs
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    states = unroll(x.transpose(0, 1), *others)
    found = iter(torch.autograd.grad(states, wanted, dstates.transpose(0, 1), create_graph=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)


def unroll_fast(
    x: Sequence, h: State, input_weight: InputWeight, recurrent_weight: RecurrentWeight, bias: Bias
) -> tuple[States, States]:
    """`unroll` with a faster backward pass. The update gates carry no gradient.

    Computes in float32 or wider, also under autocast.
    """
    inputs = x.transpose(0, 1).contiguous(), h, input_weight, recurrent_weight, bias
    precision = torch.promote_types(bias.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        states, updates = GatedRecurrentUnit.apply(*(tensor.to(precision) for tensor in inputs))
    return states.transpose(0, 1).to(bias.dtype), updates.transpose(0, 1).to(bias.dtype)


class GRU(nn.Module):
    """The GRU layer. Returns all states and the last state. Initial weights are uniform in ±1/√hidden."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 3 * hidden)
        self.recurrent = nn.Linear(hidden, 3 * hidden, bias=False)
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Sequence, h: State | None = None) -> tuple[States, State]:
        """`h` is the initial state (default: zeros), for example the last state of an earlier call."""
        states, _ = self.with_updates(x, h)
        return states, states[:, -1]

    def with_updates(self, x: Sequence, h: State | None = None) -> tuple[States, States]:
        """All states and all update gates. A unit keeps its value if its gate is 1."""
        h = x.new_zeros(len(x), self.recurrent.in_features) if h is None else h
        return unroll_fast(x, h, self.input.weight, self.recurrent.weight, self.input.bias)
