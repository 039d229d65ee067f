"""Implements algorithm 1 on one vector of all weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..sgd import Optimizer, Vector

Betas = tuple[float, float]


class Adam(Optimizer):
    """Adam (algorithm 1) as a torch optimiser, with the paper's defaults."""

    memories = ("m", "v")

    def __init__(
        self, weights: Iterable[Any], lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(weights, lr=lr, betas=betas, eps=eps)

    @staticmethod
    def update(
        w: Vector, g: Vector, m: Vector, v: Vector, *, t: int, lr: float, betas: Betas, eps: float
    ) -> None:
        """Applies algorithm 1 in place. `t` counts from 1.

        m  running mean of the gradients
        v  running mean of their squares
        """
        beta1, beta2 = betas
        m.lerp_(g, 1 - beta1)
        v.lerp_(g * g, 1 - beta2)
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        w -= lr * m_hat / (v_hat.sqrt() + eps)
