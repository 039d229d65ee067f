"""Section 3.1's recurrent network, to compare normalisations in: digits, read four pixels at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Run

Norm = Callable[[int], nn.Module]  # width of the state to a layer; it brings its gain and bias along

STEPS, INPUTS = 16, 4  # of an 8 × 8 image


class Scores(NamedTuple):
    """On the digits that nothing was chosen by."""

    loss: float
    error: float


class Recurrent(nn.Module):
    """Equation 4: h_t = tanh(norm(W_hh h_{t-1} + W_xh x_t)); the last state is read out.

    scale  of the recurrent weights, which start orthogonal times this
    """

    def __init__(self, norm: Norm, *, scale: float = 1.0, width: int = 64) -> None:
        super().__init__()
        self.from_input = nn.Linear(INPUTS, width, bias=False)
        self.from_state = nn.Linear(width, width, bias=False)
        self.norm = norm(width)
        self.readout = nn.Linear(width, 10)
        nn.init.normal_(self.from_input.weight, std=INPUTS**-0.5)
        nn.init.orthogonal_(self.from_state.weight, gain=scale)

    def forward(self, x: Float[Tensor, "batch steps inputs"]) -> Float[Tensor, "batch digits"]:
        seen = self.from_input(x)
        h = torch.zeros_like(seen[:, 0])
        for x_t in seen.unbind(1):
            h = torch.tanh(self.norm(self.from_state(h) + x_t))
        return self.readout(h)


class Bias(nn.Module):
    """No normalisation, and the bias that layer normalisation has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return x + self.bias


class Centring(Bias):
    """Half of layer normalisation: the mean is taken off, nothing is divided."""

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return super().forward(x - x.mean(-1, keepdim=True))


def best_of_rates(
    run: Run, arms: Mapping[str, Norm], *, scale: float, rates: Sequence[float], steps: int
) -> dict[str, Best[Scores]]:
    """Each arm at the rate that does best on the second part of the digits, and its scores on the third."""
    return {
        arm: run.sweep(
            f"{arm}, weights × {scale:g}",
            rates,
            lambda rate, arm=arm, norm=norm: train(run, arm, norm, rate, scale=scale, steps=steps),
            score="validation loss, recurrent",
        )
        for arm, norm in arms.items()
    }


def train(run: Run, arm: str, norm: Norm, rate: float, *, scale: float, steps: int) -> tuple[float, Scores]:
    """Adam with gradients clipped at norm 1; the loss to choose by, and the scores."""
    images, labels = data.digits()
    (x, y), choose, judge = data.parts(
        images.reshape(-1, STEPS, INPUTS).to(run.device, run.dtype), labels.to(run.device), seed=run.seed
    )
    torch.manual_seed(run.seed)
    model = Recurrent(norm, scale=scale).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batches = run.generator("batches")
    name = f"{arm}, weights × {scale:g}"
    run.phase("train")
    for step in run.steps(steps, f"{name}, rate {rate:g}"):
        rows = torch.randint(len(x), (32,), generator=batches)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        run.descend(loss, optimizer, step=step, metric=f"recurrent loss at rate {rate:g}", arm=name, clip=1.0)

    run.phase("evaluate")
    with torch.no_grad():
        (chosen_by, _), scores = (score(model(images), labels) for images, labels in (choose, judge))
    return chosen_by, scores


def score(scores: Float[Tensor, "batch digits"], labels: Tensor) -> Scores:
    wrong = scores.argmax(1) != labels
    return Scores(F.cross_entropy(scores, labels).item(), wrong.float().mean().item())
