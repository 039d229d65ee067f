"""Provides a small image classification task (five digits on photographs) and its training loop."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from readtrack.data import scenes
from readtrack.plugin import Run, Sweep, Trial

CLASSES = 5
SIDE = 16
BRIGHTNESS = 0.3  # approximate mean of all pixels


class Pictures(NamedTuple):
    x: Float[Tensor, "count 3 16 16"]
    y: Int64[Tensor, " count"]


HEIGHTS = (7.0, 11.0)


def pictures(run: Run, part: scenes.Part, count: int, heights: tuple[float, float] = HEIGHTS) -> Pictures:
    """Scenes of level `photo` at 16 × 16 pixels, each with a digit (0 to 4) that is `heights` pixels high."""
    return measured(run, part, count, heights)[0]


def measured(
    run: Run, part: scenes.Part, count: int, heights: tuple[float, float] = HEIGHTS
) -> tuple[Pictures, Float[Tensor, " count"]]:
    """The same images as `pictures`, and the height of each image's digit in pixels."""
    drawn = scenes.draw(count, run.data_seed(part), part, "photo", size=SIDE, digit=heights, classes=CLASSES)
    found = Pictures((drawn.images - BRIGHTNESS).to(run.device, run.dtype), drawn.labels[:, 0].to(run.device))
    return found, (drawn.boxes[:, 0, 3] - drawn.boxes[:, 0, 1]).float()


class Parts(NamedTuple):
    """Training, validation (`choose`) and test (`judge`) images, the same for all arms."""

    train: Pictures
    choose: Pictures
    judge: Pictures


def fit(
    at: Trial,
    make: Callable[[], nn.Module],
    known: Pictures,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    steps: int,
    batch: int = 32,
    label: str = "",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> nn.Module:
    """Train for `steps` steps. The learning rate warms up for 20 steps and decays linearly to 0."""
    run = at.run
    # On a CPU, max pooling is much faster in this memory format.
    network = make().to(run.device, run.dtype, memory_format=torch.channels_last).train()
    descent = optimizer(network)
    schedule = torch.optim.lr_scheduler.LambdaLR(descent, lambda s: min(1, (s + 1) / 20) * (1 - s / steps))
    batches = at.generator("batches")
    run.phase("train")
    for step in at.steps(steps, f"{at.name}{label}", state=(network, descent, schedule)):
        rows = torch.randint(len(known.x), (batch,), generator=batches)
        objective = loss(network(known.x[rows]), known.y[rows])
        at.descend(objective, descent, step=step, metric=f"loss{label}")
        schedule.step()
    run.phase("evaluate")
    return network.eval()


def fit_by_adam(
    at: Trial, make: Callable[[], nn.Module], rate: float, *, steps: int
) -> tuple[float, nn.Module]:
    """An `attempt` for `run.compare` on `Parts`. Returns the validation error and the network."""
    parts: Parts = at.world
    adam = partial(torch.optim.Adam, lr=rate)
    label = f" at rate {rate:g}"
    network = fit(at, make, parts.train, lambda n: adam(n.parameters()), steps=steps, label=label)
    return error(network, parts.choose), network


@torch.no_grad()
def wrong(network: nn.Module, held_out: Pictures) -> Float[Tensor, " count"]:
    """1 for each misclassified image, 0 otherwise."""
    found = torch.cat([network(x).argmax(1) for x in held_out.x.split(250)])
    return (found != held_out.y).float()


def error(network: nn.Module, held_out: Pictures) -> float:
    """Share of misclassified images."""
    return wrong(network, held_out).mean().item()


def read_error(at: Trial, found: Sweep[nn.Module]) -> dict[str, Tensor]:
    """A `read` for `run.compare`: the test error of each image."""
    mistakes = wrong(found.chosen, at.world.judge)
    at.metric("error", mistakes.mean().item())
    return {"error": mistakes}


def train(
    run: Run,
    arm: str,
    make: Callable[[], nn.Module],
    known: Pictures,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    *,
    steps: int,
    batch: int = 32,
    label: str = "",
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> nn.Module:
    """Train for `steps` steps. The learning rate warms up for 20 steps and decays linearly to 0.

    `make` runs under the run's seed, so arms with the same architecture start from the same weights.
    """
    torch.manual_seed(run.seed)
    network = make().to(run.device, run.dtype).train()
    descent = optimizer(network)
    schedule = torch.optim.lr_scheduler.LambdaLR(descent, lambda s: min(1, (s + 1) / 20) * (1 - s / steps))
    batches = run.generator("batches")
    run.phase("train")
    for step in run.steps(steps, f"{arm}{label}"):
        rows = torch.randint(len(known.x), (batch,), generator=batches)
        objective = loss(network(known.x[rows]), known.y[rows])
        run.descend(objective, descent, step=step, metric=f"loss{label}", arm=arm)
        schedule.step()
    run.phase("evaluate")
    return network.eval()


def error_by_height(
    run: Run, networks: Mapping[str, nn.Module], held_out: Pictures, heights: Float[Tensor, " count"]
) -> None:
    """Plot each arm's error for five ranges of the digit's height. The app shows this curve first."""
    curve = "error over the digit's height"
    for arm, network in networks.items():
        for rows in heights.argsort().chunk(5):
            fifth = Pictures(*(field[rows.to(run.device)] for field in held_out))
            run.metric(curve, error(network, fifth), step=heights[rows].mean().item(), arm=arm)
    run.axes(curve, x="height of the digit in pixels", y="share misclassified")
    run.headline(curve)
