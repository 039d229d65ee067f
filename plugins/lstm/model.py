"""Implements the LSTM's equations, their hand-written backward pass, and the module."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Sequence = Float[Tensor, "batch time inputs"]
State = Float[Tensor, "batch hidden"]
States = Float[Tensor, "batch time hidden"]
InputWeight = Float[Tensor, "4*hidden inputs"]
RecurrentWeight = Float[Tensor, "4*hidden hidden"]
Bias = Float[Tensor, "4*hidden"]


def unroll(
    x: Sequence,
    h: State,
    c: State,
    input_weight: InputWeight,
    recurrent_weight: RecurrentWeight,
    bias: Bias,
) -> tuple[States, State]:
    """The equations step by step, from state h and cell c. Returns all states and the last cell."""
    states = []
    for drive in F.linear(x, input_weight, bias).unbind(1):
        i, f, g, o = torch.addmm(drive, h, recurrent_weight.mT).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # the 1997 paper has no f
        h = o.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, 1), c


class LongShortTermMemory(torch.autograd.Function):
    """`unroll` with time first and a hand-written backward pass.

    The backward pass computes the derivatives of the gates for all steps at once. It computes the weights'
    gradients in one matrix multiplication over all steps, whereas autograd sums one product per step. Second
    derivatives come from autograd through `unroll`.
    """

    @staticmethod
    def forward(
        ctx,
        x: Float[Tensor, "time batch inputs"],
        h: State,
        c: State,
        input_weight: InputWeight,
        recurrent_weight: RecurrentWeight,
        bias: Bias,
    ) -> tuple[Float[Tensor, "time batch hidden"], State]:
        inputs = x, h, c, input_weight, recurrent_weight, bias
        time, hidden = len(x), h.shape[1]
        gates = F.linear(x, input_weight, bias)
        rest = h.new_empty(time, *h.shape)
        states, cells = torch.cat((h[None], rest)), torch.cat((c[None], rest))
        transposed, squashed = recurrent_weight.mT.contiguous(), torch.empty_like(c)
        i, f, g, o = (part.unbind() for part in gates.chunk(4, 2))
        gate, i_and_f = gates.unbind(), gates[..., : 2 * hidden].unbind()
        h, c = states.unbind(), cells.unbind()
        for t in range(time):
            gate[t].addmm_(h[t], transposed)
            i_and_f[t].sigmoid_()
            g[t].tanh_()
            o[t].sigmoid_()
            torch.mul(f[t], c[t], out=c[t + 1]).addcmul_(i[t], g[t])
            torch.mul(o[t], torch.tanh(c[t + 1], out=squashed), out=h[t + 1])
        ctx.save_for_backward(*inputs, gates, states, cells)
        return states[1:], cells[-1].clone()

    @staticmethod
    def backward(ctx, dstates: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, gates, states, cells = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients themselves are differentiated
            return unroll_again(inputs, dstates, dlast)
        x, _, _, input_weight, recurrent_weight, _ = inputs
        i, f, g, o = gates.chunk(4, 2)
        squashed = cells[1:].tanh()
        through_o = o * (1 - squashed * squashed)  # derivative of a state w.r.t. its cell
        # Derivatives w.r.t. the gates' pre-activations: of the state for o, of the cell for the others.
        local = torch.empty_like(gates)
        di, df, dg, do = local.chunk(4, 2)
        torch.mul(i * (1 - i), g, out=di)
        torch.mul(f * (1 - f), cells[:-1], out=df)
        torch.mul(1 - g * g, i, out=dg)
        torch.mul(o * (1 - o), squashed, out=do)

        dh, dc = torch.zeros_like(states[0]), dlast.clone()
        backwards = (tensor.unbind()[::-1] for tensor in (dstates, local, through_o, f))
        for arriving, slope, to_cell, kept in zip(*backwards, strict=True):
            dh.add_(arriving)
            dc.addcmul_(dh, to_cell)
            slope.mul_(torch.cat((dc, dc, dc, dh), 1))
            torch.mm(slope, recurrent_weight, out=dh)
            dc.mul_(kept)
        rows = local.flatten(0, 1)
        return (
            local @ input_weight,
            dh,
            dc,
            rows.mT @ x.flatten(0, 1),
            rows.mT @ states[:-1].flatten(0, 1),
            rows.sum(0),
        )


def unroll_again(inputs: list[Tensor], dstates: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of the `inputs` that need one, by autograd through `unroll`, with their graph."""
    x, *others = inputs
    outputs = unroll(x.transpose(0, 1), *others)
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    arriving = dstates.transpose(0, 1), dlast
    found = iter(torch.autograd.grad(outputs, wanted, arriving, create_graph=True))
    return tuple(next(found) if tensor.requires_grad else None for tensor in inputs)


def unroll_fast(
    x: Sequence,
    h: State,
    c: State,
    input_weight: InputWeight,
    recurrent_weight: RecurrentWeight,
    bias: Bias,
) -> tuple[States, State]:
    """`unroll` with a faster backward pass. Computes in float32 or wider, also under autocast."""
    inputs = x.transpose(0, 1).contiguous(), h, c, input_weight, recurrent_weight, bias
    precision = torch.promote_types(bias.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        states, c = LongShortTermMemory.apply(*(tensor.to(precision) for tensor in inputs))
    return states.transpose(0, 1).to(bias.dtype), c.to(bias.dtype)


class LSTM(nn.Module):
    """The LSTM layer. Returns all states together with the last state and cell.

    Initial weights are uniform in ±1/√hidden, as in torch.

    forget_bias  added to the forget gate's initial bias; larger values make the cell remember longer. At 50
                 the gate is 1, and the cell is that of the 1997 paper
    """

    def __init__(self, inputs: int, hidden: int, *, forget_bias: float = 1.0) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)
        with torch.no_grad():
            self.input.bias[hidden : 2 * hidden] += forget_bias

    def forward(
        self, x: Sequence, last: tuple[State, State] | None = None
    ) -> tuple[States, tuple[State, State]]:
        """`last` is the initial state and cell (default: zeros), for example from an earlier call."""
        if last is None:
            zeros = x.new_zeros(len(x), self.recurrent.in_features)
            last = zeros, zeros
        states, c = unroll_fast(x, *last, self.input.weight, self.recurrent.weight, self.input.bias)
        return states, (states[:, -1], c)
