"""Exercises: write Hessian-vector products, the full matrix, Lanczos's method, and the spectral density."""

from collections.abc import Iterator

import torch
from torch import Tensor

from readtrack.plugin import Draw, Exercise, Try

from .model import Lanczos, Product, Weights, hessian_product


def product(matrix: Tensor) -> Product:
    def call(v: Tensor) -> Tensor:
        return matrix.to(v) @ v

    return call


def times_hessian(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """H v for the loss mean((tanh(b) a)²), with a and b concatenated into one vector of weights."""

    def loss(weights: Weights) -> Tensor:
        return (weights["b"].tanh() @ weights["a"]).square().mean()

    return hessian_product(loss, {"a": a, "b": b})(v)


def of_weights(draw: Draw) -> Iterator[Try]:
    yield Try("2 weights", draw(1), draw(1, 1), draw(2))
    yield Try("8 weights", draw(2), draw(3, 2), draw(8))
    yield Try("a zero vector", draw(2), draw(1, 2), 0 * draw(4))


def of_matrices(draw: Draw) -> Iterator[Try]:
    for n in (2, 3):
        half = draw(n, n)
        yield Try(f"n = {n}", product(half + half.mT), draw(n))
    yield Try("not quite symmetric", product(draw(2, 2)), draw(2))


def of_starts(draw: Draw) -> Iterator[Try]:
    for label, n, steps in (("one step", 3, 1), ("2 of 4 steps", 4, 2), ("all steps", 4, 4)):
        half = draw(n, n)
        yield Try(label, product(half + half.mT), draw(n), steps)
    twice = torch.diag(torch.tensor([1.0, 1, 3, 3]).double())
    yield Try("two eigenvalues: early stop", product(twice), draw(4), 4)


def of_curves(draw: Draw) -> Iterator[Try]:
    def run(steps: int) -> Lanczos:
        return Lanczos(draw(steps), draw(steps).softmax(0))

    grid = torch.linspace(-2, 2, 5).double()
    yield Try("one value", [run(1)], grid, 0.5)
    yield Try("3 values", [run(3)], grid, 0.8)
    yield Try("2 runs", [run(3), run(2)], grid, 0.8)


EXERCISES = (
    Exercise(
        name="product",
        of="model.hessian_product",
        task="Write Pearlmutter's operator: return a function that maps v to H v, without storing H.",
        hints=(
            "H v is the derivative of the gradient along v.",
            "torch.func.grad(loss) is a function. torch.func.jvp differentiates it in a direction.",
            "The direction has the weights' names and shapes (unflatten). The result is a vector (flatten).",
        ),
        tries=of_weights,
        through="exercises.times_hessian",
        gradients=False,
    ),
    Exercise(
        name="full Hessian",
        of="model.full_hessian",
        task="Compute the matrix from products with unit vectors. It must be exactly symmetric.",
        hints=(
            (
                "The rows of an identity matrix are the unit vectors. torch.func.vmap processes all of them "
                "at once."
            ),
            "Rounding makes the two triangles unequal. Average the matrix with its transpose.",
        ),
        tries=of_matrices,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="Lanczos",
        of="model.lanczos",
        task="Compute a symmetric matrix's Ritz values and their weights in the start vector, from "
        "products only.",
        hints=(
            (
                "Each new vector is the product with the last vector, orthogonalised against all earlier "
                "vectors and normalised."
            ),
            "T has v · (H v) on its diagonal, and next to it the norms before normalisation.",
            (
                "From eigh(T), take the eigenvalues, and square the first components of the eigenvectors. "
                "Stop at a norm of about 0."
            ),
        ),
        tries=of_starts,
        gradients=False,
        half=False,
        tolerance=1e-6,
    ),
    Exercise(
        name="density",
        of="model.density",
        task="Compute the spectral density, averaged over runs: a Gaussian at each Ritz value, scaled by "
        "its weight.",
        hints=(
            "For all pairs of grid points and values compute exp(-((grid - value) / width)² / 2).",
            "Multiply by the weights, divide by width · √(2π), and average over the runs.",
        ),
        tries=of_curves,
    ),
)
