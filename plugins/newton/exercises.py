"""Exercises: compute the Newton direction and the order of convergence."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try


def of_directions(draw: Draw) -> Iterator[Try]:
    for n in (2, 3):
        factor = draw(n, 2 * n)
        yield Try(f"positive definite, n = {n}", draw(n), factor @ factor.mT + torch.eye(n).double())
    yield Try("a saddle", draw(2), torch.diag(torch.tensor([2.0, -1.0], dtype=torch.float64)))


def of_orders(draw: Draw) -> Iterator[Try]:
    yield Try("squares", [1e-1, 1e-2, 1e-4, 1e-8])
    yield Try("halves", [0.5, 0.25, 0.125, 0.0625])
    yield Try("rounding at the end", [1e-2, 1e-4, 1e-8, 1e-15, 1e-16])


EXERCISES = (
    Exercise(
        name="direction",
        of="model.newton_direction",
        task="Solve H d = -g with a Cholesky factor, and with a shift if H is not positive definite.",
        hints=(
            "torch.linalg.cholesky_ex also returns a number, which is above 0 if there is no factor.",
            "If it fails, add shift · ‖H‖ · I, with a shift that starts at 1e-3 and doubles.",
            "torch.cholesky_solve takes a matrix: g[:, None].",
        ),
        tries=of_directions,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="order",
        of="experiment.order",
        task="Compute the order of convergence from the last three gradient norms above 1e-13.",
        hints=("For the last three norms a, b, c above 1e-13, the order is log(c / b) / log(b / a).",),
        tries=of_orders,
    ),
)
