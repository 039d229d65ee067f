"""`Minimizer`, the base class of methods that evaluate several points in one step, and `Newton`.

Dimensions: n (all weights as one vector).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

Vector = Float[Tensor, " n"]
Matrix = Float[Tensor, "n n"]


class Point(NamedTuple):
    """A point with its loss and gradient."""

    x: Vector
    loss: float
    gradient: Vector


class Progress(NamedTuple):
    """Progress of a minimisation: evaluations of loss and gradient so far, the loss and the gradient norm."""

    evaluations: int
    loss: float
    gradient: float


class Minimizer(torch.optim.Optimizer):
    """Base class of methods that treat all weights as one vector and evaluate several points in one step.

    `step` makes up to `iterations` iterations. It stops early when the gradient norm is at most `tolerance`
    or no lower loss is found. `trace` records the last call of `step`, and `evaluations` counts all closure
    calls. The closure is the same as for torch.optim.LBFGS: it zeroes the gradients, calls `backward` and
    returns the loss.
    """

    def __init__(self, weights: Iterable[Any], *, iterations: int, tolerance: float, **defaults: Any) -> None:
        super().__init__(weights, {"iterations": iterations, "tolerance": tolerance, **defaults})
        if len(self.param_groups) != 1:
            raise ValueError("all weights form one vector, so only one parameter group is allowed")
        self.evaluations = 0
        self.trace: list[Progress] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]
        """Minimise, and return the initial loss."""
        group = self.param_groups[0]
        weights = group["params"]

        def at(x: Tensor) -> Point:
            vector_to_parameters(x, weights)
            self.evaluations += 1
            loss, gradient = self.measure(closure, weights)
            return Point(x, loss.item(), gradient)

        point = first = at(parameters_to_vector(weights))
        self.trace = [self._progress(point)]
        for _ in range(group["iterations"]):
            if self.trace[-1].gradient <= group["tolerance"]:
                break
            moved = self.iterate(point, at)
            if moved is None:
                break
            point = moved
            self.trace.append(self._progress(point))
            if not math.isfinite(point.loss + self.trace[-1].gradient):
                break
        vector_to_parameters(point.x, weights)
        return point.x.new_tensor(first.loss)

    def measure(self, closure: Callable[[], Tensor], weights: list[Tensor]) -> tuple[Tensor, Vector]:
        """The loss, and the gradient as one vector with zeros for weights that have no gradient."""
        with torch.enable_grad():
            loss = closure()
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        return loss.detach(), parameters_to_vector(gradients)

    def iterate(self, point: Point, at: Callable[[Tensor], Point]) -> Point | None:
        """The next point, or None if there is none. `at` evaluates a point."""
        raise NotImplementedError

    def _progress(self, point: Point) -> Progress:
        return Progress(self.evaluations, point.loss, point.gradient.norm().item())


def newton_direction(gradient: Vector, hessian: Matrix) -> Vector:
    """-H⁻¹ g by Cholesky factorisation, or -(H + shift I)⁻¹ g if H is not positive definite.

    The shift is the first of a doubling series that makes the matrix positive definite. The result is still a
    descent direction.

    Raises ValueError if H is not finite.
    """
    precision = gradient.dtype
    # Cholesky does not support half precision.
    gradient, hessian = (
        each.to(torch.promote_types(precision, torch.float32)) for each in (gradient, hessian)
    )
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed and not hessian.isfinite().all():
        raise ValueError("the Hessian is not finite")
    shift = 1e-3
    while failed:
        shifted = hessian + shift * hessian.norm().clamp_min(1e-12) * torch.eye(len(hessian)).to(hessian)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        shift *= 2
    return -torch.cholesky_solve(gradient[:, None], factor)[:, 0].to(precision)


class Newton(Minimizer):
    """Newton's method.

    damped   halve the step until the loss falls by at least 1e-4 of the decrease predicted by the slope
             (Armijo's rule), and shift a Hessian that is not positive definite. If False, every step is the
             full solution of H d = -g, whether or not it descends

    The closure only returns the loss with its graph, from which second derivatives are computed.
    """

    def __init__(
        self, weights: Iterable[Any], iterations: int = 20, tolerance: float = 1e-8, damped: bool = True
    ) -> None:
        super().__init__(weights, iterations=iterations, tolerance=tolerance, damped=damped)

    def measure(self, closure: Callable[[], Tensor], weights: list[Tensor]) -> tuple[Tensor, Vector]:
        with torch.enable_grad():
            loss = closure()
            gradients = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
            self._slope = parameters_to_vector(gradients)
        return loss.detach(), self._slope.detach()

    def hessian(self) -> Matrix:
        """The Hessian at the last evaluated point."""
        slope, weights = self._slope, self.param_groups[0]["params"]
        if not slope.requires_grad:
            return slope.new_zeros(len(slope), len(slope))
        n = len(slope)
        rows = torch.autograd.grad(
            slope, weights, torch.eye(n).to(slope), is_grads_batched=True, allow_unused=True
        )
        return torch.cat(
            [
                slope.new_zeros(n, w.numel()) if row is None else row.reshape(n, -1)
                for w, row in zip(weights, rows, strict=True)
            ],
            1,
        )

    def iterate(self, point: Point, at: Callable[[Tensor], Point]) -> Point | None:
        hessian = self.hessian()
        if not self.param_groups[0]["damped"]:
            step, failed = torch.linalg.solve_ex(hessian, -point.gradient)
            return None if failed else at(point.x + step)
        if not hessian.isfinite().all():
            return None
        direction = newton_direction(point.gradient, hessian)
        slope, length = (direction @ point.gradient).item(), 1.0
        # Where the predicted decrease is below the loss's rounding error, accept the step.
        slack = 4 * torch.finfo(direction.dtype).eps * abs(point.loss)
        while length > 1e-12:
            found = at(point.x + length * direction)
            if found.loss <= point.loss + 1e-4 * length * slope + slack:
                return found
            length /= 2
        return None
