"""Implements Hessian-vector products for any loss, and Lanczos's method on top of them.

Dimensions: n (all weights as one vector), steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

Weights = Mapping[str, Tensor]
Vector = Float[Tensor, " n"]
Product = Callable[[Vector], Vector]


def hessian_product(loss: Callable[[Weights], Tensor], weights: Weights) -> Product:
    """Returns the map from v to H v, where H is the Hessian of `loss` at `weights`. v and H v concatenate the
    weights in their order.

    Pearlmutter's R-operator: the exact derivative of the gradient along v, forward over reverse. Every call
    computes the gradient again.
    """
    slope = torch.func.grad(loss)
    fixed = {name: w.detach() for name, w in weights.items()}

    def product(v: Vector) -> Vector:
        _, along = torch.func.jvp(slope, (fixed,), (unflatten(v, fixed),))
        return flatten(along)

    return product


def reverse_product(loss: Callable[[Weights], Tensor], weights: Weights) -> Product:
    """`hessian_product` by reverse over reverse: the gradient of gᵀv. Use it for operations without forward
    derivatives (fused attention, an autograd function without a forward rule). Keeps the gradient's graph, so
    the weights must not change between calls."""
    leaves = {name: w.detach().requires_grad_() for name, w in weights.items()}
    slope = torch.autograd.grad(
        loss(leaves), list(leaves.values()), create_graph=True, materialize_grads=True
    )
    flat = torch.cat([g.reshape(-1) for g in slope])

    def product(v: Vector) -> Vector:
        found = torch.autograd.grad(flat, list(leaves.values()), v, retain_graph=True, materialize_grads=True)
        return torch.cat([g.reshape(-1) for g in found])

    return product


def module_loss(
    module: nn.Module, loss: Callable[[nn.Module], Tensor]
) -> tuple[Callable[[Weights], Tensor], dict[str, Tensor]]:
    """Returns a loss that calls `module` as a function of the module's weights, and also these weights.

    loss  takes a callable that replaces the module, with the same arguments
    """
    weights = {name: w for name, w in module.named_parameters() if w.requires_grad}

    def of_weights(given: Weights) -> Tensor:
        def call(*args: object, **more: object) -> object:
            return torch.func.functional_call(module, dict(given), args, more)

        return loss(call)  # type: ignore[arg-type]

    return of_weights, weights


def flatten(weights: Weights) -> Vector:
    return torch.cat([w.reshape(-1) for w in weights.values()])


def unflatten(v: Vector, like: Weights) -> dict[str, Tensor]:
    parts = v.split([w.numel() for w in like.values()])
    return {name: part.view_as(w) for (name, w), part in zip(like.items(), parts, strict=True)}


def full_hessian(product: Product, like: Vector) -> Float[Tensor, "n n"]:
    """Computes all columns of the Hessian at once. The result is exactly symmetric."""
    H = torch.func.vmap(product)(torch.eye(len(like)).to(like))
    return (H + H.mT) / 2


class Lanczos(NamedTuple):
    """values   (steps,) approximate eigenvalues (Ritz values), ascending
    weights  (steps,) share of the start vector's squared norm along each eigenvector; sums to 1
    """

    values: Float[Tensor, " steps"]
    weights: Float[Tensor, " steps"]


def lanczos(product: Product, start: Vector, steps: int) -> Lanczos:
    """Lanczos's method, which finds the ends of the spectrum first. Orthogonalises each vector twice against
    all earlier vectors, because rounding would otherwise create copies of eigenvalues. Stops early when no
    new direction is left."""
    basis = [start / start.norm()]
    diagonal, beside = [], []
    for _ in range(steps):
        v = product(basis[-1])
        diagonal.append(basis[-1] @ v)
        Q = torch.stack(basis)
        for _ in range(2):
            v = v - Q.mT @ (Q @ v)
        beside.append(v.norm())
        if beside[-1] <= 1e-10 * torch.stack(diagonal).abs().max():
            break
        basis.append(v / beside[-1])
    T = torch.diag(torch.stack(diagonal))
    off = torch.stack(beside)[: len(diagonal) - 1]
    T = T + torch.diag(off, 1) + torch.diag(off, -1)
    # torch has no eigendecomposition in half precision.
    values, vectors = torch.linalg.eigh(T.to(torch.promote_types(T.dtype, torch.float32)))
    return Lanczos(values.to(T.dtype), vectors[0].square().to(T.dtype))


def density(runs: list[Lanczos], grid: Float[Tensor, " grid"], width: float) -> Float[Tensor, " grid"]:
    """The spectral density over `grid`, by stochastic Lanczos quadrature: the mean over runs from random
    starts, with a Gaussian of the given width for each value."""
    curves = []
    for run in runs:
        bumps = torch.exp(-(((grid[:, None] - run.values) / width) ** 2) / 2)
        curves.append(bumps @ run.weights / (width * (2 * torch.pi) ** 0.5))
    return torch.stack(curves).mean(0)
