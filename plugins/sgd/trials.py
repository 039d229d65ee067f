"""Test problems for optimisers: a small digit classifier, and a character model.

All plugins of this family use these problems, so their experiments differ only in the optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from readtrack.plugin import Run, Sweep, Trial

Make = Callable[..., torch.optim.Optimizer]  # takes weights and `lr`

RATES = tuple(10 ** (exponent / 2) for exponent in range(-6, 2))  # eight learning rates from 1e-3 to 3.2


@dataclass(frozen=True, slots=True)
class Problem:
    """A classification problem.

    name     name of the problem in metrics
    build    makes the network; weights are drawn from torch's global generator
    inputs   one row per example
    targets  the class of each example
    batch    size of the random batches; 0: all rows
    penalty  adds penalty / 2 · ‖w‖² to the loss
    noise    standard deviation of the noise added to the inputs in every step
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Shaped[Tensor, "rows inputs"]
    targets: Int[Tensor, " rows"]
    batch: int = 64
    penalty: float = 0.0
    noise: float = 0.0

    def loss(self, model: nn.Module, generator: torch.Generator) -> Float[Tensor, ""]:
        inputs, targets = self.inputs, self.targets
        if self.batch:
            rows = torch.randint(len(inputs), (self.batch,), generator=generator).to(inputs.device)
            inputs, targets = inputs[rows], targets[rows]
        if self.noise:
            inputs = inputs + self.noise * torch.randn(inputs.shape, generator=generator).to(inputs)
        error = F.cross_entropy(model(inputs), targets)
        if not self.penalty:
            return error
        return error + self.penalty / 2 * sum(w.square().sum() for w in model.parameters())


def digits(run: Run) -> list[tuple[Float[Tensor, "rows pixels"], Int[Tensor, " rows"]]]:
    """Pixels and labels of the training, validation and test digits."""
    return [
        (images.flatten(1).to(run.device, run.dtype), labels.to(run.device))
        for images, labels in run.source("images", needs="ten classes").parts
    ]


def pixel_scales(
    generator: torch.Generator, pixels: int = 64, *, spread: float = 1.5
) -> Float[Tensor, " pixels"]:
    """10^u with u uniform in [−spread, spread]. Inputs multiplied by these factors are badly scaled."""
    return 10 ** (spread * (2 * torch.rand(pixels, generator=generator) - 1))


def perceptron(pixels: int = 64, *, hidden: int = 64) -> nn.Sequential:
    """A network with one hidden layer and ten classes."""
    return nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 10))


class NextCharacter(nn.Module):
    """Predicts the next character from the previous eight: an embedding and two hidden layers."""

    def __init__(self, characters: int, *, context: int = 8, embedding: int = 16, hidden: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, embedding)
        self.layers = nn.Sequential(
            nn.Linear(context * embedding, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, characters),
        )

    def forward(self, before: Int[Tensor, "batch context"]) -> Float[Tensor, "batch characters"]:
        return self.layers(self.embed(before).flatten(1))


def prose(run: Run, *, context: int = 8) -> tuple[Tensor, Tensor, int]:
    """All windows of `context` characters of a text, the character after each, and the alphabet size.

    The text is English prose unless `--data` names another.
    """
    source = run.source("text")
    windows = torch.cat([piece.unfold(0, context + 1, 1) for piece in source.parts.train])
    windows = windows.to(run.device)
    return windows[:, :-1], windows[:, -1], len(source.names)


def start(run: Run, build: Callable[[], nn.Module], draw: str = "weights") -> nn.Module:
    """A network on the run's device and in its precision, initialised from the seed and `draw`."""
    torch.manual_seed(run.generator(draw).initial_seed())
    return build().to(run.device, run.dtype)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    problem: Problem,
    *,
    steps: Iterable[int],
    generator: torch.Generator,
) -> Iterator[float]:
    """For each step, draw a batch, compute the gradient, update, and yield the loss before the update."""
    for _ in steps:
        loss = problem.loss(model, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def cosine(t: int, total: int, *, warmup: int = 0) -> float:
    """Learning-rate factor at step t = 0 .. total − 1: a linear warm-up times half a cosine down to 0."""
    return min((t + 1) / max(warmup, 1), 1) * (1 + math.cos(math.pi * t / total)) / 2


@torch.no_grad()
def evaluate(
    model: nn.Module, images: Float[Tensor, "rows pixels"], labels: Int[Tensor, " rows"]
) -> tuple[float, float]:
    """Loss and accuracy."""
    scores = model(images)
    return F.cross_entropy(scores, labels).item(), (scores.argmax(-1) == labels).float().mean().item()


def late(losses: Sequence[float]) -> float:
    """The mean over the last quarter of the losses, or NaN if it is not finite.

    With a constant learning rate, single-batch losses are too noisy to compare.
    """
    quarter = losses[-max(len(losses) // 4, 1) :]
    mean = sum(quarter) / len(quarter)
    return mean if math.isfinite(mean) else math.nan


def race(at: Trial, make: Make, rate: float, *, steps: int) -> tuple[float, list[float]]:
    """Train on the problem that `Trial.world` has for the trial's level.

    The second training (`Trial.again`) uses new weights and batches, because a learning rate may have been
    selected by chance. Return the mean loss over the last quarter of the batches, and all losses.
    """
    problem: Problem = at.world[at.level]
    # The second network of a seed has different weights from the first.
    model = [problem.build() for _ in range(1 + at.again)][-1].to(at.run.device, at.run.dtype)
    generator = at.generator("batches, again" if at.again else "batches")
    optimizer = make(model.parameters(), lr=rate)
    curve = f"training loss, {problem.name}" if at.again else ""
    losses: list[float] = []
    label, state = f"{problem.name}: {at.name}, rate {rate:.2g}", (model, optimizer, losses)
    for step in at.steps(at.length(steps), label, state):
        loss = problem.loss(model, generator)
        losses.append(at.descend(loss, optimizer, step=step, metric=curve))
    losses = losses or [problem.loss(model, generator).item()]
    return late(losses), losses


def end_loss(at: Trial, found: Sweep[list[float]]) -> dict[str, float]:
    """The mean loss over the last quarter of batches in the second training."""
    loss = late(found.chosen)
    at.metric("end loss", loss)
    return {"end loss": loss}
