"""Trains a deep convolutional network without shortcut connections on noisy digits, to compare
normalisations.

The network has seven 3 × 3 convolutions, each followed by the normalisation and a ReLU, then average pooling
and one linear layer. The weights are initialised as in He et al. (2015), so a network without normalisation
has no disadvantage at the start. Fresh noise is added to the pixels of every batch.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Run, Sweep, Trial

WIDTHS = (16, 32, 32, 64, 64, 64, 64)
NOISE = 0.2  # standard deviation; ink is 1
DRAWS = 2  # noisy copies of each validation and test image

Norm = Callable[[int], nn.Module]  # maps the number of features to a layer


def network(norm: Norm, *, widths: Sequence[int] = WIDTHS) -> nn.Sequential:
    """Maps images (batch, 1, 8, 8) to ten logits. The last maps are 4 × 4."""
    layers: list[nn.Module] = []
    for index, (inputs, features) in enumerate(zip((1, *widths), widths, strict=False)):
        convolution = nn.Conv2d(inputs, features, 3, stride=2 if index == 1 else 1, padding=1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
        layers += [convolution, norm(features), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def digits(run: Run, *, judge: float = 0.3) -> data.Parts:
    """Images (n, 1, 8, 8), larger with `--data`, and labels (n,) for training, validation and test.

    judge  share of the images in the test part
    """
    source = run.source(
        "images",
        at_most=run.pick(smoke=5_000, quick=5_000, full=None),
        needs="ten classes",
        choose=0.1,
        judge=judge,
    ).grey(run.pick(smoke=14, quick=14, full=32))
    return data.Parts(*((x.to(run.device, run.dtype), y.to(run.device)) for x, y in source.parts))


Measures = dict[str, Tensor]  # "loss" and "error" of each image


def attempt(
    at: Trial,
    make: Callable[[Tensor], nn.Module],
    rate: float,
    *,
    steps: int,
    clip: float | None = None,
) -> tuple[float, Measures]:
    """Train a network, and return its validation loss and the measures of each test image.

    `make` builds the network from a first batch of noisy images (256, 1, 8, 8). The optimiser is SGD with
    momentum and a cosine schedule that ends at 0.
    """
    run, (x, y) = at.run, at.world.train
    steps = at.length(steps)
    model = make(noisy(x[:256], at.generator("start"))).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches, noise = at.generator("batches"), at.generator("noise")
    run.phase("train")
    for step in at.steps(steps, f"images, {at.name}, rate {rate:g}", (model, optimizer, schedule)):
        rows = torch.randint(len(x), (32,), generator=batches)
        loss = F.cross_entropy(model(noisy(x[rows], noise)), y[rows])
        at.descend(loss, optimizer, step=step, metric=f"loss on images at rate {rate:g}", clip=clip)
        schedule.step()
    run.phase("evaluate")
    with run.evaluating(model):
        chosen_by, judged = (
            measures(model, images, labels, run.data(f"noise to {part}", part))
            for part, (images, labels) in (("choose", at.world.choose), ("judge", at.world.judge))
        )
    return chosen_by["loss"].mean().item(), judged


def measures(model: nn.Module, images: Tensor, labels: Tensor, noise: torch.Generator) -> Measures:
    """Loss and error of each image, averaged over `DRAWS` noisy copies."""
    y = labels.repeat(DRAWS)
    scores = model(noisy(images.repeat(DRAWS, 1, 1, 1), noise))
    found = {"loss": F.cross_entropy(scores, y, reduction="none"), "error": (scores.argmax(1) != y).float()}
    return {name: values.view(DRAWS, -1).mean(0) for name, values in found.items()}


def read_off(at: Trial, found: Sweep[Measures]) -> Measures:
    """The measures at the chosen learning rate."""
    for name, values in found.chosen.items():
        at.metric(f"{name} on images", values.mean().item())
    return found.chosen


def noisy(
    images: Float[Tensor, "batch 1 height width"], generator: torch.Generator
) -> Float[Tensor, "batch 1 height width"]:
    return images + NOISE * torch.randn(images.shape, generator=generator).to(images)
