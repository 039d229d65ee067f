"""Times one Adam step, and training with SGD, torch's Adam and ours to a target loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.optim.adamw import adamw as torch_adamw

from readtrack.plugin import Bench, Case, hookimpl

from ..sgd import SGD
from ..sgd.benchmark import step_cases, until_case
from .model import Adam


def one_tensor_at_a_time(
    weights: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    *,
    weight_decay: float = 0.0,
) -> None:
    """Adam's algorithm 1 line by line, or AdamW's algorithm 2 if `weight_decay` is given."""
    for w, g, m, v in zip(weights, gradients, first, second, strict=True):
        m.copy_(0.9 * m + 0.1 * g)
        v.copy_(0.999 * v + 0.001 * g**2)
        step = (m / (1 - 0.9**10)) / ((v / (1 - 0.999**10)).sqrt() + 1e-8)
        w -= 1e-3 * (step + weight_decay * w if weight_decay else step)


def torch_fused(
    weights: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    steps: list[Tensor],
    *,
    weight_decay: float = 0.0,
) -> None:
    """torch's AdamW, which equals torch's Adam when the weight decay is 0."""
    settings = {"beta1": 0.9, "beta2": 0.999, "lr": 1e-3, "eps": 1e-8, "weight_decay": weight_decay}
    flags = {"amsgrad": False, "maximize": False, "fused": True}
    torch_adamw(weights, gradients, first, second, [], steps, **settings, **flags)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    yield from step_cases(
        bench,
        "Adam step",
        naive=one_tensor_at_a_time,
        strong=torch_fused,
        ours=partial(Adam.update, t=10, lr=1e-3, betas=(0.9, 0.999), eps=1e-8),
        memories=2,
        flops=10,
        traffic=7,
    )
    yield until_case(
        bench,
        {
            ("SGD", "naive"): (partial(SGD, lr=1.0), 64),
            ("torch Adam", "strong"): (partial(torch.optim.Adam, lr=0.03, fused=True), 64),
            ("Adam", "paper"): (partial(Adam, lr=0.03), 64),
        },
        target=bench.pick(smoke=2.0, quick=0.2, full=0.05),
        limit=5000,
    )
