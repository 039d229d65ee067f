"""Implements the BFGS update, a line search that satisfies the strong Wolfe conditions, and the optimiser
`BFGS`.

Dimensions: n (all weights as one vector).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..newton.model import Matrix, Minimizer, Point, Vector

Update = Callable[[Matrix, Vector, Vector], Matrix]


def bfgs_update(H: Matrix, s: Vector, y: Vector) -> Matrix:
    """The model of the inverse Hessian after a step s that changed the gradient by y, with H⁺ y = s.

    H⁺ = (I - ρ s yᵀ) H (I - ρ y sᵀ) + ρ s sᵀ with ρ = 1 / sᵀy, computed as one symmetric rank-two
    update in O(n²) operations. H⁺ is positive definite if H is and sᵀy > 0.
    """
    rho, Hy = 1 / (s @ y), H @ y
    # ρ (1 + ρ yᵀHy) s sᵀ - ρ (Hy sᵀ + s yᵀH) = u sᵀ + s uᵀ
    u = rho / 2 * (1 + rho * (y @ Hy)) * s - rho * Hy
    return H.addmm(torch.stack((u, s), 1), torch.stack((s, u)))


def wide_enough(s: Vector, y: Vector) -> bool:
    """Whether the curvature sᵀy exceeds rounding error. If it does, the update keeps H positive definite."""
    return (s @ y).item() > 1e-10 * (s.norm() * y.norm()).item()


def cubic_minimum(a: float, fa: float, da: float, b: float, fb: float, db: float) -> float:
    """The minimiser of the cubic with the given values and slopes at a and b, or NaN if it has no minimum.

    Nocedal and Wright, "Numerical Optimization", equation 3.59.
    """
    if not math.isfinite(fa + fb + da + db):
        return math.nan
    d1 = da + db - 3 * (fa - fb) / (a - b)
    under = d1**2 - da * db
    if under < 0:
        return math.nan
    d2 = math.copysign(math.sqrt(under), b - a)
    below = db - da + 2 * d2
    return b - (b - a) * (db + d2 - d1) / below if below else math.nan


def strong_wolfe(
    at: Callable[[Tensor], Point],
    start: Point,
    direction: Vector,
    *,
    first: float = 1.0,
    c1: float = 1e-4,
    c2: float = 0.9,
    most: int = 40,
) -> Point | None:
    """A point x + a d that satisfies the strong Wolfe conditions: the loss falls by at least c1 times the
    fall that the initial slope predicts, and the size of the slope is at most c2 times that of the initial
    slope.

    Nocedal and Wright, algorithms 3.5 and 3.6, with cubic interpolation. Each trial point is kept at
    least a tenth of the bracket away from both ends.

    direction  must be a descent direction
    first      first trial value of the length a; quadrupled while the slope stays steep
    most       maximum number of evaluations, after which the best point with sufficient decrease is
               returned, or None if there is none
    """
    slope0 = (direction @ start.gradient).item()
    # Where the predicted fall is below the loss's rounding error, the losses cannot be compared.
    slack = 4 * torch.finfo(direction.dtype).eps * abs(start.loss)

    def look(length: float) -> tuple[float, Point, float]:
        point = at(start.x + length * direction)
        return length, point, (direction @ point.gradient).item()

    def falls(a: float, point: Point) -> bool:
        return point.loss <= start.loss + c1 * a * slope0 + slack

    low = (0.0, start, slope0)  # the lowest point with sufficient decrease
    high: tuple[float, Point, float] | None = None  # the other end of the bracket
    length = first
    for _ in range(most):
        found = look(length)
        a, point, slope = found
        if not falls(a, point) or (point.loss > low[1].loss + slack):
            high = found
        elif abs(slope) <= -c2 * slope0:
            return point
        else:
            outward = a - low[0] if high is None else high[0] - a
            if slope * outward >= 0:  # uphill away from the lowest point: a minimum lies between the two
                high = low
            low = found
        length = next_length(low, high)
        if high is not None and abs(high[0] - low[0]) <= 1e-12 * max(abs(low[0]), 1e-12):
            break
    return low[1] if low[0] > 0 else None


def next_length(low: tuple[float, Point, float], high: tuple[float, Point, float] | None) -> float:
    """The cubic's minimiser inside the bracket, or four times the length if there is no bracket yet."""
    a, point, slope = low
    if high is None:
        return 4 * a
    b, other, slope_b = high
    found = cubic_minimum(a, point.loss, slope, b, other.loss, slope_b)
    left, right = min(a, b), max(a, b)
    margin = (right - left) / 10
    return min(max(found, left + margin), right - margin) if math.isfinite(found) else (left + right) / 2


class BFGS(Minimizer):
    """Broyden, Fletcher, Goldfarb and Shanno's method.

    iterations, tolerance, closure   as in `Minimizer`
    c1, c2                           constants of the line search
    update                           updates the model of the inverse Hessian, which is kept between steps

    The first model is the identity, scaled by sᵀy / yᵀy before its first update (Nocedal and Wright,
    equation 6.20). Pairs without positive curvature are skipped.
    """

    def __init__(
        self,
        weights: Iterable[Any],
        iterations: int = 20,
        tolerance: float = 1e-8,
        c1: float = 1e-4,
        c2: float = 0.9,
        update: Update = bfgs_update,
    ) -> None:
        super().__init__(weights, iterations=iterations, tolerance=tolerance, c1=c1, c2=c2)
        self._update = update

    @property
    def memory(self) -> dict[str, Any]:
        """The optimiser's memory, stored in the state of the first weight."""
        return self.state[self.param_groups[0]["params"][0]]

    def direction(self, gradient: Vector) -> Vector:
        H = self.memory.get("H")
        return -gradient if H is None else -(H @ gradient)

    def learn(self, s: Vector, y: Vector) -> None:
        """Update the model with a step s and the change y of the gradient."""
        H = self.memory.get("H")
        if H is None:
            H = (s @ y) / (y @ y) * torch.eye(len(s)).to(s)
        self.memory["H"] = self._update(H, s, y)

    def forget(self) -> None:
        self.memory.clear()

    def iterate(self, point: Point, at: Callable[[Tensor], Point]) -> Point | None:
        found = self.search(point, at)
        if found is None and self.memory:  # no descent with this model: restart from the gradient
            self.forget()
            found = self.search(point, at)
        if found is None:
            return None
        s, y = found.x - point.x, found.gradient - point.gradient
        if wide_enough(s, y):
            self.learn(s, y)
        return found

    def search(self, point: Point, at: Callable[[Tensor], Point]) -> Point | None:
        settings = self.param_groups[0]
        direction = self.direction(point.gradient)
        if not (direction @ point.gradient).item() < 0:
            return None
        # The scale is unknown before the first step, so the first trial step has length at most 1.
        first = 1.0 if self.memory else min(1.0, 1 / point.gradient.norm().item())
        return strong_wolfe(at, point, direction, first=first, c1=settings["c1"], c2=settings["c2"])
