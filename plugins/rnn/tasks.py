"""Tests of the lags that a recurrent network can learn: the gradient at each lag, and the adding problem."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Run, Sweep, Trial

LENGTH = 50  # sequence length in all plugins on recurrent layers


def gradient_over_lags(
    recurrent: nn.Module, x: Float[Tensor, "batch time inputs"], generator: torch.Generator
) -> Float[Tensor, " lags"]:
    """The norm of the gradient of a random projection of the last state, with respect to the input 0, 1, ...
    steps before.

    `recurrent(x)` returns its states first.
    """
    x = x.detach().requires_grad_()
    last = recurrent(x)[0][:, -1]
    direction = torch.randn(last.shape, generator=generator).to(last)
    (gradient,) = torch.autograd.grad(last, x, direction)
    return gradient.square().sum((0, 2)).sqrt().flip(0)


def adding_problem(
    count: int, length: int, generator: torch.Generator, *, window: int | None = None
) -> tuple[Float[Tensor, "count length 2"], Float[Tensor, " count"]]:
    """Random values in [0, 1], of which two are marked. The target is the sum of the marked values.

    Hochreiter and Schmidhuber 1997, experiment 4. An input is (value, mark). The constant answer 1 has a mean
    squared error of 1/6.

    window  the marks lie in the last `window` steps, one in each half of them (default: all steps)
    """
    values = torch.rand(count, length, generator=generator)
    window = length if window is None else window
    half = window // 2
    first = torch.randint(half, (count, 1), generator=generator)
    second = torch.randint(half, window, (count, 1), generator=generator)
    positions = torch.cat((first, second), 1) + length - window
    marks = torch.zeros_like(values).scatter_(1, positions, 1.0)
    return torch.stack((values, marks), -1), (values * marks).sum(1)


class Adder(nn.Module):
    """A recurrent network and a linear readout of its last state. `recurrent(inputs, hidden)` builds it."""

    def __init__(self, recurrent: Callable[[int, int], nn.Module], hidden: int) -> None:
        super().__init__()
        self.recurrent, self.readout = recurrent(2, hidden), nn.Linear(hidden, 1)

    def forward(self, x: Float[Tensor, "batch time 2"]) -> Float[Tensor, " batch"]:
        return self.readout(self.recurrent(x)[0][:, -1])[:, 0]


class AllAtOnce(nn.Module):
    """A perceptron with two hidden layers instead of a recurrent layer, with an input for each position.

    Its second hidden layer takes the place of the last state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(LENGTH * inputs, 4 * hidden), nn.ReLU(), nn.Linear(4 * hidden, hidden), nn.ReLU()
        )

    def forward(
        self, x: Float[Tensor, "batch time inputs"]
    ) -> tuple[Float[Tensor, "batch 1 hidden"], Float[Tensor, "batch hidden"]]:
        last = self.layers(x.flatten(1))
        return last[:, None], last


def learn_to_add(
    at: Run | Trial,
    name: str,
    recurrent: Callable[[int, int], nn.Module],
    *,
    rate: float,
    length: int,
    steps: int,
    window: int | None = None,
    hidden: int = 32,
) -> Adder:
    """Train on the adding problem with Adam, a linearly decaying learning rate, and gradients clipped to 1.

    name  label of the curves, with the arm and its learning rate
    """
    run = at.run if isinstance(at, Trial) else at
    network = Adder(recurrent, hidden).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches = at.generator("sequences to train on")
    run.phase("train")
    for step in at.steps(steps, f"adding, {name}", state=(network, optimizer, schedule)):
        x, y = adding_problem(32, length, batches, window=window)
        loss = error_of(network, x, y)
        at.descend(loss, optimizer, step=step, metric="error at adding", arm=name, clip=1.0)
        schedule.step()
    return network


@torch.no_grad()
def adding_error(
    run: Run, network: Adder, part: Literal["choose", "judge"], *, length: int, window: int | None = None
) -> float:
    """The mean squared error on held-out sequences, which are the same for all arms and learning rates."""
    count = run.pick(smoke=10, quick=4000, full=10_000)
    stream = run.data(f"sequences to {part} by", part)
    return error_of(network, *adding_problem(count, length, stream, window=window)).item()


def error_of(
    network: Adder, x: Float[Tensor, "batch time 2"], y: Float[Tensor, " batch"]
) -> Float[Tensor, ""]:
    like = network.readout.weight
    return F.mse_loss(network(x.to(like)), y.to(like))


class Characters(nn.Module):
    """Logits of the next character: an embedding, the layer `recurrent(inputs, hidden)`, and a readout."""

    def __init__(self, recurrent: Callable[[int, int], nn.Module], hidden: int, vocab: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.recurrent = recurrent(hidden, hidden)
        self.readout = nn.Linear(hidden, vocab)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        return self.readout(self.recurrent(self.embedding(ids))[0])


class Reader(NamedTuple):
    """An arm of a comparison on the adding problem.

    recurrent  `recurrent(inputs, hidden)` builds the layer
    window     the marks lie in the last `window` steps; None for all steps
    """

    recurrent: Callable[[int, int], nn.Module]
    window: int | None = None


class Learned(NamedTuple):
    network: Adder
    window: int | None

    def error(self, run: Run, part: Literal["choose", "judge"]) -> float:
        return adding_error(run, self.network, part, length=LENGTH, window=self.window)


def reach_back(at: Trial, reader: Reader, rate: float, *, steps: int) -> tuple[float, Learned]:
    """The `attempt` of a comparison. Returns the validation error and the network."""
    layer, window = reader
    name = f"{at.name}, rate {rate:g}"
    network = learn_to_add(at, name, layer, rate=rate, length=LENGTH, steps=steps, window=window)
    found = Learned(network, window)
    at.run.phase("evaluate")
    at.metric("error at adding, new sequences", found.error(at.run, "judge"), arm=name)
    return found.error(at.run, "choose"), found


def error_at_adding(at: Trial, found: Sweep[Learned]) -> dict[str, float]:
    """The `read` of a comparison. Returns the test error, and whether it is below 0.01."""
    error = found.chosen.error(at.run, "judge")
    at.metric("error at its best rate", error)
    return {"error": error, "learned": float(error < 0.01)}
