"""Makes the optimisers of the arms and breaks, each with the coefficient of the L2 penalty in the loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..adam import Adam
from ..sgd import Vector
from .model import AdamW, Betas


def decoupled(weights: Iterable[Tensor], rate: float, amount: float) -> tuple[AdamW, float]:
    """The first step shrinks the weights by the fraction `amount`, whatever the learning rate."""
    return AdamW(weights, lr=rate, weight_decay=amount / rate), 0.0


def coupled(weights: Iterable[Tensor], rate: float, amount: float) -> tuple[Adam, float]:
    return Adam(weights, lr=rate), amount


class RescaledDecay(AdamW):
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
        before = w.clone()
        Adam.update(w, g, m, v, t=t, lr=lr, betas=betas, eps=eps)
        v_hat = v / (1 - betas[1] ** t)
        w -= lr * weight_decay * before / (v_hat.sqrt() + eps)


def rescaled(weights: Iterable[Tensor], rate: float, amount: float) -> tuple[AdamW, float]:
    return RescaledDecay(weights, lr=rate, weight_decay=amount), 0.0


def with_sgd(weights: Iterable[Tensor], rate: float, amount: float) -> tuple[torch.optim.SGD, float]:
    return torch.optim.SGD(weights, lr=10 * rate, momentum=0.9), amount
