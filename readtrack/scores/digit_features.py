"""Features of a small image classifier, for comparing generated digits or clothes with real ones.

Papers that generate digits are judged by the Fréchet distance between the features of their samples and of
held-out digits. The distance between training digits and held-out digits is the best attainable value.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.scores.frechet import frechet_distance

if TYPE_CHECKING:
    from readtrack.data.sources import DataSource
    from readtrack.runs.run import Run

FEATURES = 16


class DigitFeatures(nn.Module):
    """Maps images (n, side * side) or (n, ..., side, side) in [0, 1] to class logits. `features` returns the
    penultimate activations.
    """

    def __init__(self, width: int = 16, *, side: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.side = side
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.narrow = nn.Linear(2 * width * (-(-side // 4)) ** 2, FEATURES)
        self.out = nn.Linear(FEATURES, classes)

    def features(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n 16"]:
        return torch.tanh(self.narrow(self.convolutions(x.view(-1, 1, self.side, self.side))))

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "n classes"]:
        return cast(Tensor, self.out(self.features(x)))

    @torch.no_grad()
    def distance(self, made: Float[Tensor, "n ..."], real: Float[Tensor, "m ..."]) -> float:
        """The Fréchet distance of the features. Few images bias it upwards, so compare equal counts."""
        return frechet_distance(self.features(made), self.features(real))


def digit_features(run: Run, source: DataSource) -> DigitFeatures:
    """The trained network, from the cache (`Run.trained`) or trained in 2 seconds on one core.

    source  square greyscale images, of which only the training split is used
    """
    x, y = source.parts.train

    def train(network: nn.Module) -> None:
        _train(network, run, x.to(run.device, run.dtype), y.to(run.device))

    make = partial(DigitFeatures, side=x.shape[-1], classes=len(source.names))
    return cast(DigitFeatures, run.trained(f"{source.name}.features", make, train).network)


def _train(network: nn.Module, run: Run, x: Float[Tensor, "n ..."], y: Int64[Tensor, " n"]) -> None:
    steps = run.pick(smoke=3, quick=400, full=800)
    generator = run.generator("digit features")
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for step in run.steps(steps, "training the digits' features"):
        rows = torch.randint(len(x), (64,), generator=generator)
        loss = F.cross_entropy(network(x[rows]), y[rows])
        run.descend(loss, optimizer, step=step, metric="digit features' loss")
        decay.step()
