"""The simple recurrent network, as a function and as a module."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def unroll(
    x: Float[Tensor, "batch time inputs"],
    state: Float[Tensor, "batch hidden"],
    input_weight: Float[Tensor, "hidden inputs"],
    recurrent_weight: Float[Tensor, "hidden hidden"],
    bias: Float[Tensor, " hidden"],
) -> Float[Tensor, "batch time hidden"]:
    """h_t = tanh(W x_t + U h_{t-1} + b) for every t, from h_0 = `state`."""
    # The projection of the inputs does not depend on the state, so it is one matrix multiplication over all
    # steps. We use `unbind`, because the backward pass of indexing would fill a full-length tensor per step.
    states = []
    for drive in F.linear(x, input_weight, bias).unbind(1):
        state = torch.addmm(drive, state, recurrent_weight.mT).tanh()
        states.append(state)
    return torch.stack(states, 1)


class RNN(nn.Module):
    """Elman's network without its output layer. Returns all states and the last state.

    Initial weights are uniform in ±1/√hidden, as in torch. Elman's activation was the logistic function.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input = nn.Linear(inputs, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)

    def forward(
        self, x: Float[Tensor, "batch time inputs"], state: Float[Tensor, "batch hidden"] | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch hidden"]]:
        """`state` is the initial state: zeros by default, or the last state of the previous chunk."""
        if state is None:
            state = x.new_zeros(len(x), self.recurrent.in_features)
        states = unroll(x, state, self.input.weight, self.recurrent.weight, self.input.bias)
        return states, states[:, -1]


class IdentityRNN(RNN):
    """The strongest network without gates: ReLU units, with recurrent weights initialised to the identity.

    The biases are initialised to 0 (Le, Jaitly and Hinton 2015, arXiv 1504.00941).
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        nn.init.eye_(self.recurrent.weight)
        nn.init.zeros_(self.input.bias)

    def forward(
        self, x: Float[Tensor, "batch time inputs"], state: Float[Tensor, "batch hidden"] | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch hidden"]]:
        if state is None:
            state = x.new_zeros(len(x), self.recurrent.in_features)
        states = []
        for drive in self.input(x).unbind(1):
            state = torch.addmm(drive, state, self.recurrent.weight.mT).relu()
            states.append(state)
        return torch.stack(states, 1), state
