"""Times one product with the inverse Hessian, and complete minimisations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..bfgs.benchmark import fitted_by, minimisations
from .model import LBFGS, two_loop


def as_written(gradient: Tensor, s: list[Tensor], y: list[Tensor]) -> Tensor:
    """The recursion as written, with a new vector for each line."""
    q, alphas = gradient, {}
    for i in range(len(s) - 1, -1, -1):
        alphas[i] = (s[i] @ q) / (s[i] @ y[i])
        q = q - alphas[i] * y[i]
    r = (s[-1] @ y[-1]) / (y[-1] @ y[-1]) * q
    for i in range(len(s)):
        beta = (y[i] @ r) / (s[i] @ y[i])
        r = r + (alphas[i] - beta) * s[i]
    return r


def compact(
    gradient: Float[Tensor, " n"],
    S: Float[Tensor, "m n"],
    Y: Float[Tensor, "m n"],
    SY: Float[Tensor, "m m"],
) -> Tensor:
    """Theorem 2.2 of Byrd, Nocedal and Schnabel 1994: products with S and Y, and two m × m triangular
    systems. An optimiser would keep S Yᵀ between steps."""
    R, D = SY.triu(), SY.diagonal()
    gamma = SY[-1, -1] / (Y[-1] @ Y[-1])
    Sg, Yg = S @ gradient, Y @ gradient
    p = torch.linalg.solve_triangular(R, Sg[:, None], upper=True)[:, 0]
    inner = D * p + gamma * (Y @ (Y.mT @ p)) - gamma * Yg
    u = torch.linalg.solve_triangular(R.mT, inner[:, None], upper=False)[:, 0]
    return gamma * gradient + S.mT @ u - gamma * (Y.mT @ p)


def stacked(gradient: Tensor, s: list[Tensor], y: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    S, Y = torch.stack(s), torch.stack(y)
    return gradient, S, Y, S @ Y.mT


def two_loops(gradient: Tensor, s: list[Tensor], y: list[Tensor]) -> Tensor:
    return two_loop(gradient, s, y, (s[-1] @ y[-1]) / (y[-1] @ y[-1]))


def history(generator: torch.Generator, *, n: int, m: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A gradient, and m pairs (s, y) with curvatures between 0.1 and 10."""
    curvature = torch.logspace(-1, 1, n)
    steps = [torch.randn(n, generator=generator) for _ in range(m)]
    return torch.randn(n, generator=generator), steps, [curvature * s for s in steps]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((7, 3),), quick=((1000, 10), (100_000, 10)), full=((100_000, 10), (1_000_000, 20))
    )
    for n, m in sizes:
        yield Case(
            name="product with the inverse Hessian",
            axes={"n": n, "pairs": m},
            inputs=partial(history, n=n, m=m),
            variants=(
                Variant(name="as written", role="naive", call=as_written),
                Variant(name="compact form", role="strong", call=compact, prepare=stacked),
                Variant(name="two loops", role="paper", call=two_loops),
            ),
            cost={"forward": Cost(flops=8 * m * n, bytes=(2 * m + 2) * n * bench.dtype.itemsize)},
            tolerance=1e-3 if bench.dtype == torch.float32 else None,
        )
    ours = Variant(name="l-bfgs", role="paper", call=fitted_by(LBFGS, 500))
    yield from minimisations(bench, "L-BFGS-B", ours)
