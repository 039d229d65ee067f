"""Implements SGD and Adam with decoupled weight decay.

As in torch, the decay is multiplied by the learning rate, so a schedule (the paper's ηₜ) scales both.
`weight_decay` is therefore the paper's λ / lr.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..sgd import Optimizer, Vector

Betas = tuple[float, float]


class SGDW(Optimizer):
    """Algorithm 1 without momentum."""

    def __init__(self, weights: Iterable[Any], lr: float, weight_decay: float = 0.01) -> None:
        super().__init__(weights, lr=lr, weight_decay=weight_decay)

    @staticmethod
    def update(w: Vector, g: Vector, *, t: int, lr: float, weight_decay: float) -> None:
        w -= lr * (g + weight_decay * w)


class AdamW(Optimizer):
    """Algorithm 2, with torch's defaults."""

    memories = ("m", "v")

    def __init__(
        self,
        weights: Iterable[Any],
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(weights, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @staticmethod
    def update(
        w: Vector,
        g: Vector,
        m: Vector,
        v: Vector,
        *,
        t: int,
        lr: float,
        betas: Betas,
        eps: float,
        weight_decay: float,
    ) -> None:
        """Applies lines 7 to 12 of algorithm 2 in place.

        m  running mean of the gradients, without the decay
        v  running mean of the squared gradients, without the decay
        t  number of the step, counted from 1
        """
        beta1, beta2 = betas
        m.lerp_(g, 1 - beta1)
        v.lerp_(g * g, 1 - beta2)
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w -= lr * (m_hat / (v_hat.sqrt() + eps) + weight_decay * w)
