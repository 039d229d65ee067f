"""The features of a small network for handwritten digits, by which made digits are compared with real ones.

The judge of the papers that make digits: Fréchet's distance between the features of their samples and those
of held-out digits. The same distance of training digits is its floor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack import data
from readtrack.scores.frechet import frechet_distance

if TYPE_CHECKING:
    from readtrack.runs.run import Run

FEATURES = 16


class DigitFeatures(nn.Module):
    """Digits (n, 8, 8) in [0, 1] to scores of ten classes; `features` gives what lies before them."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.narrow = nn.Linear(8 * width, FEATURES)
        self.out = nn.Linear(FEATURES, 10)

    def features(self, x: Float[Tensor, "n 8 8"]) -> Float[Tensor, "n 16"]:
        return torch.tanh(self.narrow(self.convolutions(x[:, None])))

    def forward(self, x: Float[Tensor, "n 8 8"]) -> Float[Tensor, "n 10"]:
        return cast(Tensor, self.out(self.features(x)))

    @torch.no_grad()
    def distance(self, made: Float[Tensor, "n 8 8"], real: Float[Tensor, "m 8 8"]) -> float:
        """Fréchet's distance of the features. Biased upwards for few digits: compare equal counts."""
        return frechet_distance(self.features(made), self.features(real))


def digit_features(run: Run) -> DigitFeatures:
    """The trained network, from the cache if it is there (`Run.trained`): 2 seconds on one core if not.

    Trained on the training part of `data.parts(*data.digits(), seed=run.seed)`.
    """

    def train(network: nn.Module) -> None:
        x, y = data.parts(*data.digits(), seed=run.seed).train
        _train(network, run, x.to(run.device, run.dtype), y.to(run.device))

    return cast(DigitFeatures, run.trained("digits.features", DigitFeatures, train).network)


def _train(network: nn.Module, run: Run, x: Float[Tensor, "n 8 8"], y: Int64[Tensor, " n"]) -> None:
    steps = run.pick(smoke=3, quick=400, full=800)
    generator = run.generator("digit features")
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in run.steps(steps, "training the digits' features"):
        rows = torch.randint(len(x), (64,), generator=generator)
        loss = F.cross_entropy(network(x[rows]), y[rows])
        run.descend(loss, optimizer, step=step, metric="digit features' loss")
        decay.step()
