"""Decoupled decay, with SGD and with Adam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..adam import Adam, Betas, adam
from ..sgd import SGD, Tensors


def decay(weights: Tensors, *, rate: float) -> None:
    """w ← (1 − rate) w, in place."""
    torch._foreach_mul_(weights, 1 - rate)


class SGDW(SGD):
    """Algorithm 1 without momentum. As in torch, the decay is multiplied by the learning rate, so that
    schedules (the paper's ηₜ) scale both: λ here is the paper's λ / lr."""

    def __init__(self, weights: Iterable[Any], lr: float, weight_decay: float = 0.01) -> None:
        super().__init__(weights, lr, weight_decay=weight_decay)

    def update(self, weights: Tensors, gradients: Tensors, *, t: int, lr: float, weight_decay: float) -> None:
        decay(weights, rate=lr * weight_decay)
        super().update(weights, gradients, t=t, lr=lr)


def adamw(
    weights: Tensors,
    gradients: Tensors,
    first: Tensors,
    second: Tensors,
    *,
    lr: float,
    weight_decay: float,
    **settings: Any,
) -> None:
    """Algorithm 2, in place: line 12 takes the decay out of the gradient, and the rest is `adam`."""
    decay(weights, rate=lr * weight_decay)
    adam(weights, gradients, first, second, lr=lr, **settings)


class AdamW(Adam):
    """Algorithm 2, with the decay multiplied by the learning rate as above."""

    def __init__(
        self,
        weights: Iterable[Any],
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(weights, lr, betas, eps, weight_decay=weight_decay)

    def update(self, weights: Tensors, gradients: Tensors, *, t: int, **settings: Any) -> None:
        moments = self.memory("first", weights), self.memory("second", weights)
        adamw(weights, gradients, *moments, t=t, **settings)
