"""Implements DFP's update, nonlinear conjugate gradients and gradient descent with the same line search.

Dimensions: n (all weights as one vector).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..newton.model import Matrix, Minimizer, Point, Vector
from .model import strong_wolfe


def dfp_update(H: Matrix, s: Vector, y: Vector) -> Matrix:
    """H⁺ = H - H y yᵀ H / yᵀHy + s sᵀ / sᵀy (Davidon 1959, Fletcher and Powell 1963).

    Also satisfies H⁺ y = s. It is the BFGS formula applied to the inverse of H.
    """
    Hy = H @ y
    return H - torch.outer(Hy, Hy) / (y @ Hy) + torch.outer(s, s) / (s @ y)


class Conjugate(Minimizer):
    """Nonlinear conjugate gradients, Polak and Ribière's with restarts (PR+), or gradient descent with
    `beta=False`. The first trial length is chosen so that the predicted fall equals the last step's."""

    def __init__(
        self,
        weights: Iterable[Any],
        iterations: int = 20,
        tolerance: float = 1e-8,
        c1: float = 1e-4,
        c2: float = 0.4,
        beta: bool = True,
    ) -> None:
        super().__init__(weights, iterations=iterations, tolerance=tolerance, c1=c1, c2=c2, beta=beta)
        self._last: tuple[Vector, Vector, float] | None = None  # gradient, direction, slope times length

    def iterate(self, point: Point, at: Callable[[Tensor], Point]) -> Point | None:
        settings, gradient = self.param_groups[0], point.gradient
        direction, first = -gradient, min(1.0, 1 / gradient.norm().item())
        if self._last is not None:
            before, last, promised = self._last
            if settings["beta"]:
                direction = self.factor(gradient, before, last).clamp_min(0) * last - gradient
                if direction @ gradient >= 0:
                    direction = -gradient
            first = promised / (direction @ gradient).item()
        found = strong_wolfe(at, point, direction, first=first, c1=settings["c1"], c2=settings["c2"])
        if found is not None:
            length = ((found.x - point.x).norm() / direction.norm()).item()
            self._last = (gradient, direction, length * (direction @ gradient).item())
        return found

    def factor(self, gradient: Vector, before: Vector, last: Vector) -> Tensor:
        """The last direction's factor (Polak and Ribière)."""
        return gradient @ (gradient - before) / (before @ before)


class HestenesStiefel(Conjugate):
    """The same method with Hestenes and Stiefel's factor, which makes the direction conjugate to the last."""

    def factor(self, gradient: Vector, before: Vector, last: Vector) -> Tensor:
        change = gradient - before
        return gradient @ change / (last @ change)
