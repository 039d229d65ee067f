"""Linear probes for teachers and students, trained in parallel on pixels or on pre-trained features."""

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data

from .model import Loss, confidence_loss, warm_up

Inputs = Float[Tensor, "*#teachers batch inputs"]
Part = tuple[Float[Tensor, "images 64"], Int[Tensor, " images"]]
Parts = dict[str, Part]
View = Callable[[Float[Tensor, "images 64"]], Inputs]


def descend(loss: Float[Tensor, ""], optimizer: torch.optim.Optimizer, *, step: int) -> None:
    """A plain optimiser step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


Descend = Callable[..., object]


class Probes(nn.Module):
    """An independent linear layer for each teacher, evaluated in parallel."""

    def __init__(self, teachers: int, inputs: int, classes: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(teachers, inputs, classes))
        self.bias = nn.Parameter(torch.zeros(teachers, 1, classes))

    def forward(self, x: Inputs) -> Float[Tensor, "teachers batch classes"]:
        return x @ self.weight + self.bias


def learn(
    probes: Probes,
    x: Inputs,
    target: Float[Tensor, "teachers batch 2"],
    generator: torch.Generator,
    *,
    epochs: int,
    rate: float,
    peak: float = 0.0,
    loss: Loss = confidence_loss,
    counted: Iterable[int] | None = None,
    descend: Descend = descend,
) -> Iterator[int]:
    """Train on each teacher's labels, and yield each epoch's number after the epoch.

    counted  yields the epochs, such as `at.steps(epochs)`; None for all epochs
    descend  takes an optimiser step on the loss, such as `at.descend`
    """
    optimizer = torch.optim.Adam(probes.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs) if counted is None else counted:
        batches = torch.randperm(x.shape[-2], generator=generator).to(x.device).split(64)
        for index, rows in enumerate(batches):
            alpha = warm_up((epoch + index / len(batches)) / epochs, peak)
            error = loss(probes(x[..., rows, :]), target[:, rows], alpha).mean(-1).sum()
            descend(error, optimizer, step=epoch)
        decay.step()
        yield epoch


@torch.no_grad()
def accuracy(probes: Probes, x: Inputs, odd: Int[Tensor, " batch"]) -> float:
    """The mean accuracy of the probes."""
    return (probes(x).argmax(-1) == odd).float().mean().item()


def classroom(generator: torch.Generator, like: Tensor, teachers: int) -> tuple[Parts, View]:
    """Disjoint sets of images and digits, and a function that selects the 20 pixels that each teacher sees.

    There are 500 images for pre-training, 100 for the teachers, 478 for them to label, and 719 for the test.
    """
    images, labels = data.digits()
    images, labels = images.flatten(1).to(like), labels.to(like.device)
    order = torch.randperm(len(images), generator=generator).to(like.device)
    names = ("pre-training", "teachers", "transfer", "test")
    rows = dict(zip(names, order.split((500, 100, 478, len(order) - 1078)), strict=True))
    known = {name: (images[some], labels[some]) for name, some in rows.items()}
    pixels = torch.rand(teachers, 64, generator=generator).argsort(-1)[:, :20].to(like.device)
    return known, lambda images: images[:, pixels].transpose(0, 1)


def features(width: int, generator: torch.Generator) -> nn.Sequential:
    """The strong model without its head, randomly initialised."""
    layers = (nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def pretrain(
    body: nn.Sequential,
    part: Part,
    steps: Iterable[int],
    generator: torch.Generator,
    descend: Descend = descend,
) -> None:
    """Train the features to classify the ten digits, then freeze them."""
    images, digits = part
    head = Probes(1, body[-2].out_features, 10).to(images)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.003)
    for step in steps:
        rows = torch.randint(len(images), (64,), generator=generator).to(images.device)
        descend(F.cross_entropy(head(body(images[rows]))[0], digits[rows]), optimizer, step=step)
    body.requires_grad_(False)


def halves(digits: Int[Tensor, " images"], teachers: int) -> Float[Tensor, "teachers images 2"]:
    """The true labels, as distributions over even and odd."""
    return F.one_hot(digits % 2, 2).float().expand(teachers, -1, -1)
