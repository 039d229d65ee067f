"""Test functions of one vector: Rosenbrock, logistic regression on two digits, and a small network.

Dimensions: n (all weights as one vector), rows, pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack import data


@dataclass(frozen=True)
class Problem:
    """A smooth function of one vector, and a starting point."""

    name: str
    start: Float[Tensor, " n"]
    loss: Callable[[Tensor], Tensor]

    def closure(self, w: Tensor) -> Callable[[], Tensor]:
        """A closure for torch's optimisers: zeroes the gradient, calls `backward`, returns the loss."""

        def call() -> Tensor:
            w.grad = None
            loss = self.loss(w)
            loss.backward()
            return loss

        return call


def rosenbrock(x: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The extended Rosenbrock function: a curved valley for each pair of neighbouring coordinates (n even).

    For n = 2 it is Rosenbrock's function of 1960. Its minimum, 0, is at (1, ..., 1).
    """
    odd, even = x[::2], x[1::2]
    return (100 * (even - odd.square()).square() + (1 - odd).square()).sum()


def rosenbrock_problem(n: int, generator: torch.Generator) -> Problem:
    """The usual starting point (-1.2, 1, -1.2, ...), plus noise of standard deviation 0.1."""
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64).repeat(n // 2)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return Problem(f"Rosenbrock, n = {n}", start + 0.1 * noise, rosenbrock)


def two_digits(
    generator: torch.Generator,
) -> tuple[str, Float[Tensor, "rows pixels"], Float[Tensor, " rows"]]:
    """Two random digit classes: their names, images in [0, 1], and class labels 0 or 1, in float64."""
    images, labels = data.digits()
    zero, one = torch.randperm(10, generator=generator)[:2].tolist()
    rows = (labels == zero) | (labels == one)
    return f"{zero}/{one}", images[rows].flatten(1).double(), (labels[rows] == one).double()


def logistic_problem(generator: torch.Generator, *, scale: float = 1.0, l2: float = 1e-2) -> Problem:
    """Logistic regression on two digits, with a bias.

    scale  factor for the pixels; 16 gives the range of the data set and a worse-conditioned function
    l2     weight of half the squared norm, which keeps the minimiser finite when the digits are separable
    """
    name, images, labels = two_digits(generator)
    x = torch.cat([scale * images, torch.ones(len(images), 1, dtype=torch.float64)], 1)

    def loss(w: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x @ w, labels) + l2 / 2 * w @ w

    return Problem(f"logistic {name}", torch.zeros(x.shape[1], dtype=torch.float64), loss)


def network_problem(generator: torch.Generator, *, hidden: int = 6, l2: float = 1e-3) -> Problem:
    """A network with one hidden tanh layer on 300 images of all ten digits."""
    images, labels = data.digits()
    rows = torch.randperm(len(images), generator=generator)[:300]
    x, y = images[rows].flatten(1).double(), labels[rows]
    sizes = (hidden * 64, hidden, 10 * hidden, 10)

    def loss(w: Tensor) -> Tensor:
        w1, b1, w2, b2 = w.split(sizes)
        h = torch.tanh(F.linear(x, w1.view(hidden, 64), b1))
        return F.cross_entropy(F.linear(h, w2.view(10, hidden), b2), y) + l2 / 2 * w @ w

    start = torch.randn(sum(sizes), generator=generator, dtype=torch.float64) / 8
    return Problem(f"network, {sum(sizes)} weights", start, loss)
