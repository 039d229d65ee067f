"""What normalisations are compared in: a deep convolutional network without shortcuts, on noisy digits.

Seven 3 × 3 convolutions, each followed by the normalisation and a ReLU, then the mean over positions and one
linear layer. The weights start with He's variance (2015), at which a network without normalisation loses
nothing by its start; every batch has fresh noise on its pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Run, Sweep, Trial

WIDTHS = (16, 32, 32, 64, 64, 64, 64)
NOISE = 0.2  # standard deviation, where ink is 1

Norm = Callable[[int], nn.Module]  # number of features to a layer


class Scores(NamedTuple):
    """On the digits that nothing was chosen by."""

    loss: float
    error: float


def network(norm: Norm, *, widths: Sequence[int] = WIDTHS) -> nn.Sequential:
    """From images (batch, 1, 8, 8) to a score for each digit; the last maps are 4 × 4."""
    layers: list[nn.Module] = []
    for index, (inputs, features) in enumerate(zip((1, *widths), widths, strict=False)):
        convolution = nn.Conv2d(inputs, features, 3, stride=2 if index == 1 else 1, padding=1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
        layers += [convolution, norm(features), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def digits(run: Run) -> data.Parts:
    """Images (n, 1, 8, 8) and labels (n,) in three parts."""
    images, labels = data.digits()
    parts = data.parts(images[:, None].to(run.device, run.dtype), labels.to(run.device), seed=run.seed)
    rows = run.rows(len(parts.judge[0]), "judge")
    return parts._replace(judge=(parts.judge[0][rows], parts.judge[1][rows]))


Measures = dict[str, Tensor]  # "loss" and "error" of each image


def attempt(
    at: Trial,
    make: Callable[[Tensor], nn.Module],
    rate: float,
    *,
    steps: int,
    size: int = 32,
    clip: float | None = None,
) -> tuple[float, Measures]:
    """Train the network that `make` returns for a first batch of noisy images (256, 1, 8, 8).

    SGD with momentum, its rate falling to zero along a cosine. Returns the loss on the second part of the
    digits, and the measures on the third.
    """
    run, (x, y) = at.run, at.world.train
    steps = at.length(steps)
    model = make(noisy(x[:256], at.generator("start"))).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches, noise = at.generator("batches"), at.generator("noise")
    run.phase("train")
    for step in at.steps(steps, f"images, {at.name}, rate {rate:g}"):
        rows = torch.randint(len(x), (size,), generator=batches)
        loss = F.cross_entropy(model(noisy(x[rows], noise)), y[rows])
        at.descend(loss, optimizer, step=step, metric=f"loss on images at rate {rate:g}", clip=clip)
        schedule.step()
    run.phase("evaluate")
    with run.evaluating(model):
        chosen_by, judged = (
            measures(model(noisy(images, run.data(f"noise to {part}", part))), labels)
            for part, (images, labels) in (("choose", at.world.choose), ("judge", at.world.judge))
        )
    return chosen_by["loss"].mean().item(), judged


def measures(scores: Float[Tensor, "batch digits"], labels: Tensor) -> Measures:
    wrong = scores.argmax(1) != labels
    return {"loss": F.cross_entropy(scores, labels, reduction="none"), "error": wrong.float()}


def read_off(at: Trial, found: Sweep[Measures]) -> Measures:
    """The measures at the rate that was chosen."""
    for name, values in found.chosen.items():
        at.metric(f"{name} on images", values.mean().item())
    return found.chosen


def best_of_rates(
    run: Run, arms: Mapping[str, Norm], rates: Sequence[float], *, steps: int
) -> dict[str, Best[Scores]]:
    """Each arm at the rate that does best on the second part of the digits, and its scores on the third."""
    return {
        arm: run.sweep(
            arm,
            rates,
            lambda rate, arm=arm, norm=norm: train(run, arm, norm, rate, steps=steps),
            score="validation loss on images",
        )
        for arm, norm in arms.items()
    }


def train(run: Run, arm: str, norm: Norm, rate: float, *, steps: int) -> tuple[float, Scores]:
    """`fit` for a network of layers with `norm`."""
    return fit(run, arm, lambda _: network(norm), rate, steps=steps)


def fit(
    run: Run, arm: str, make: Callable[[Tensor], nn.Module], rate: float, *, steps: int, size: int = 32
) -> tuple[float, Scores]:
    """The network that `make` returns for a first batch of noisy images (256, 1, 8, 8), trained.

    SGD with momentum, its rate falling to zero along a cosine; the loss to choose by, and the scores.
    """
    images, labels = data.digits()
    (x, y), choose, judge = data.parts(
        images[:, None].to(run.device, run.dtype), labels.to(run.device), seed=run.seed
    )
    torch.manual_seed(run.seed)
    model = make(noisy(x[:256], run.generator("start"))).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches, noise = run.generator("batches"), run.generator("noise")
    run.phase("train")
    for step in run.steps(steps, f"images, {arm}, rate {rate:g}"):
        rows = torch.randint(len(x), (size,), generator=batches)
        loss = F.cross_entropy(model(noisy(x[rows], noise)), y[rows])
        run.descend(loss, optimizer, step=step, metric=f"loss on images at rate {rate:g}", arm=arm)
        schedule.step()

    run.phase("evaluate")
    model.eval()
    with torch.no_grad():
        (chosen_by, _), scores = (
            score(model(noisy(images, run.generator(name))), labels)
            for name, (images, labels) in (("noise to choose", choose), ("noise to judge", judge))
        )
    return chosen_by, scores


def noisy(
    images: Float[Tensor, "batch 1 height width"], generator: torch.Generator
) -> Float[Tensor, "batch 1 height width"]:
    return images + NOISE * torch.randn(images.shape, generator=generator).to(images)


def score(scores: Float[Tensor, "batch digits"], labels: Tensor) -> Scores:
    wrong = scores.argmax(1) != labels
    return Scores(F.cross_entropy(scores, labels).item(), wrong.float().mean().item())
