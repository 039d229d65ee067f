"""Times one step, and training to a target loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.optim.adamw import adamw as torch_adamw

from readtrack.plugin import Bench, Case, hookimpl

from ..sgd import SGD
from ..sgd.benchmark import step_cases, until_case
from .model import ScheduleFreeAdamW

LR, BETA, C, T = 1e-3, 0.9, 0.1, 10  # settings of the benchmark: the tenth step at a constant learning rate


def three_sequences(
    ys: list[Tensor], gradients: list[Tensor], zs: list[Tensor], squares: list[Tensor]
) -> None:
    """Algorithm 1 line by line, one tensor at a time."""
    for y, g, z, v in zip(ys, gradients, zs, squares, strict=True):
        x = (y - (1 - BETA) * z) / BETA
        v.copy_(0.999 * v + 0.001 * g**2)
        z -= LR * g / ((v / (1 - 0.999**T)).sqrt() + 1e-8)
        x = (1 - C) * x + C * z
        y.copy_((1 - BETA) * z + BETA * x)


def on_torch_fused(
    ys: list[Tensor], gradients: list[Tensor], zs: list[Tensor], squares: list[Tensor], steps: list[Tensor]
) -> None:
    """Update z with torch's fused AdamW without momentum, and compute y from the change in z."""
    share = 1 - BETA * (1 - C)
    torch._foreach_lerp_(ys, zs, C)
    torch._foreach_add_(ys, zs, alpha=-share)
    # At beta1 = 0 the first moment is the gradient itself, so both can share a tensor.
    settings = {"beta1": 0.0, "beta2": 0.999, "lr": LR, "eps": 1e-8, "weight_decay": 0.0}
    flags = {"amsgrad": False, "maximize": False, "fused": True}
    torch_adamw(zs, gradients, gradients, squares, [], steps, **settings, **flags)
    torch._foreach_add_(ys, zs, alpha=share)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    settings = {"lr": LR, "beta": BETA, "beta2": 0.999, "eps": 1e-8, "warmup": 0, "weight_decay": 0.0}
    yield from step_cases(
        bench,
        "Schedule-Free step",
        naive=three_sequences,
        strong=on_torch_fused,
        ours=partial(ScheduleFreeAdamW.update, t=T, c=C, **settings),
        memories=2,
        flops=14,
        traffic=7,
        strong_name="torch fused AdamW, then y",
    )
    yield until_case(
        bench,
        {
            ("SGD", "naive"): (partial(SGD, lr=1.0), 64),
            ("torch AdamW", "strong"): (partial(torch.optim.AdamW, lr=0.03, fused=True), 64),
            ("Schedule-Free AdamW", "paper"): (partial(ScheduleFreeAdamW, lr=0.1, warmup=20), 64),
        },
        target=bench.pick(smoke=2.0, quick=0.1, full=0.01),
        limit=5000,
    )
