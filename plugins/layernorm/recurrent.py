"""Trains section 3.1's recurrent network with any normalisation. It reads digits four pixels at a time."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Run, Sweep, Trial

Norm = Callable[[int], nn.Module]  # maps the state's size to a layer with a gain and a bias

STEPS, INPUTS = 16, 4  # time steps, and pixels per step, of an 8 × 8 image


class Setting(NamedTuple):
    """An arm's normalisation, and the scale of its initial recurrent weights."""

    norm: Norm
    scale: float = 4.0


class Recurrent(nn.Module):
    """Equation 4: h_t = tanh(norm(W_hh h_{t-1} + W_xh x_t)), with logits from the last state.

    scale  factor that multiplies the orthogonal initial matrix of the recurrent weights
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
    """Adds only a bias, which layer normalisation also adds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return x + self.bias


class Centring(Bias):
    """Half of layer normalisation: subtracts the mean, but does not divide by the standard deviation."""

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return super().forward(x - x.mean(-1, keepdim=True))


def sequences(run: Run) -> data.Parts:
    """Images (n, 16, 4) and labels (n,), for training, validation and test."""
    images, labels = data.digits()
    x = images.reshape(-1, STEPS, INPUTS).to(run.device, run.dtype)
    return judged_rows(run, data.parts(x, labels.to(run.device), seed=run.seed))


def judged_rows(run: Run, parts: data.Parts) -> data.Parts:
    rows = run.rows(len(parts.judge[0]), "judge")
    return parts._replace(judge=(parts.judge[0][rows], parts.judge[1][rows]))


Scores = dict[str, float]  # "loss" and "error"


def attempt(at: Trial, setting: Setting, rate: float, *, steps: int) -> tuple[float, Scores]:
    """Train with Adam, clipping gradients to norm 1. Return the validation loss and the test scores."""
    run, (x, y) = at.run, at.world.train
    model = Recurrent(setting.norm, scale=setting.scale).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batches = at.generator("batches")
    run.phase("train")
    for step in at.steps(at.length(steps), f"{at.name}, rate {rate:g}", state=(model, optimizer)):
        rows = torch.randint(len(x), (32,), generator=batches)
        loss = F.cross_entropy(model(x[rows]), y[rows])
        at.descend(loss, optimizer, step=step, metric=f"recurrent loss at rate {rate:g}", clip=1.0)
    run.phase("evaluate")
    with run.evaluating(model):
        chosen_by, judged = (score(model(images), labels) for images, labels in at.world[1:])
    return chosen_by["loss"], judged


def score(scores: Float[Tensor, "batch digits"], labels: Tensor) -> Scores:
    wrong = scores.argmax(1) != labels
    return {"loss": F.cross_entropy(scores, labels).item(), "error": wrong.float().mean().item()}


def read_off(at: Trial, found: Sweep[Scores]) -> Scores:
    """The scores at the chosen learning rate."""
    for name, value in found.chosen.items():
        at.metric(f"recurrent {name}", value)
    return found.chosen
