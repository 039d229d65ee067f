"""Times one Newton step, and logistic regressions up to sizes at which O(n³) operations are slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Newton, newton_direction


def by_inverse(gradient: Tensor, hessian: Tensor) -> Tensor:
    return -torch.linalg.inv(hessian) @ gradient


def by_torch(gradient: Tensor, hessian: Tensor) -> Tensor:
    factor, _ = torch.linalg.cholesky_ex(hessian)
    return -torch.cholesky_solve(gradient[:, None], factor)[:, 0]


def by_conjugate_gradients(gradient: Tensor, hessian: Tensor) -> Tensor:
    """Conjugate gradients, which need only Hessian-vector products, so H need not fit in memory."""
    direction = torch.zeros_like(gradient)
    residual = -gradient
    search, size = residual, residual @ residual
    for _ in range(2 * len(gradient)):
        product = hessian @ search
        length = size / (search @ product)
        direction = direction + length * search
        residual = residual - length * product
        size, last = residual @ residual, size
        if size <= 1e-24 * (gradient @ gradient):
            break
        search = residual + size / last * search
    return direction


def curved(generator: torch.Generator, *, n: int) -> tuple[Tensor, Tensor]:
    """A gradient and a positive definite Hessian with a condition number of about a hundred."""
    factor = torch.randn(n, 2 * n, generator=generator)
    hessian = factor @ factor.mT / (2 * n) + 0.05 * torch.eye(n)
    # On some processors a float32 matrix multiplication is not symmetric to the last bit.
    return torch.randn(n, generator=generator), (hessian + hessian.mT) / 2


def regression(generator: torch.Generator, *, n: int) -> tuple[Tensor, Tensor]:
    """Features whose scales differ by up to a factor of ten, and labels, a tenth of which are flipped."""
    x = torch.randn(4 * n, n, generator=generator) * torch.logspace(-0.5, 0.5, n)
    flipped = torch.rand(4 * n, generator=generator) < 0.1
    return x, ((x.sum(1) > 0) ^ flipped).float()


def loss_of(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(x @ w, y) + 0.005 * w @ w


def started(generator: torch.Generator, *, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A regression and weights from which a full Newton step reduces the loss."""
    return *regression(generator, n=n), 0.01 * torch.randn(n, generator=generator)


def row_by_row(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Compute H with one backward pass per row, then invert it."""
    with torch.enable_grad():
        leaf = w.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(x, y, leaf), leaf, create_graph=True)
        rows = [torch.autograd.grad(slope[i], leaf, retain_graph=True)[0] for i in range(len(w))]
    return w + by_inverse(slope.detach(), torch.stack(rows))


def by_functions(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """torch.func's Hessian, forward over reverse."""
    loss = partial(loss_of, x, y)
    return w + by_torch(torch.func.grad(loss)(w), torch.func.hessian(loss)(w))


def by_optimiser(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    leaf = nn.Parameter(w.clone())
    Newton([leaf], iterations=1, tolerance=0.0).step(lambda: loss_of(x, y, leaf))
    return leaf.detach()


def fit(
    minimise: Callable[[Tensor, Callable[[], Tensor], float], int], x: Tensor, y: Tensor
) -> dict[str, Any]:
    """Minimise until the gradient norm is 1e-4 of the initial one.

    Runs in float64, because in lower precision, rounding errors in the loss stop the line searches early.
    """
    x, y = x.double(), y.double()
    w = nn.Parameter(x.new_zeros(x.shape[1]))

    loss = partial(loss_of, x, y, w)
    (first,) = torch.autograd.grad(loss(), w)
    target = 1e-4 * first.norm().item()
    evaluations = minimise(w, loss, target)
    (last,) = torch.autograd.grad(loss(), w)
    return {"reached": last.norm().item() <= target, "evaluations": evaluations}


def by_newton(w: Tensor, loss: Callable[[], Tensor], target: float) -> int:
    optimizer = Newton([w], iterations=50, tolerance=target)
    optimizer.step(loss)
    return optimizer.evaluations


def closure_of(w: Tensor, loss: Callable[[], Tensor], calls: list[int]) -> Callable[[], Tensor]:
    """A closure for torch's optimisers. It appends to `calls` at each evaluation."""

    def closure() -> Tensor:
        calls.append(1)
        w.grad = None
        value = loss()
        value.backward()
        return value

    return closure


def by_descent(w: Tensor, loss: Callable[[], Tensor], target: float) -> int:
    """Full-batch gradient descent with a fixed step size of 1."""
    optimizer, calls = torch.optim.SGD([w], lr=1.0), []
    closure = closure_of(w, loss, calls)
    for _ in range(5000):
        optimizer.step(closure)
        if w.grad.norm().item() <= target:
            break
    return len(calls)


def by_torch_lbfgs(w: Tensor, loss: Callable[[], Tensor], target: float) -> int:
    optimizer = torch.optim.LBFGS(
        [w],
        max_iter=1000,
        max_eval=5000,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=target / len(w) ** 0.5,  # bounds the largest entry
        tolerance_change=0.0,  # torch's default would stop early
    )
    calls: list[int] = []
    optimizer.step(closure_of(w, loss, calls))
    return len(calls)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for n in bench.pick(smoke=(5,), quick=(64, 512), full=(64, 512, 2048)):
        yield Case(
            name="newton step",
            axes={"n": n},
            inputs=partial(curved, n=n),
            variants=(
                Variant(name="inverse", role="naive", call=by_inverse),
                Variant(name="torch cholesky", role="strong", call=by_torch),
                Variant(name="conjugate gradients", role="strong", call=by_conjugate_gradients),
                Variant(name="newton", role="paper", call=newton_direction),
            ),
            cost={"forward": Cost(flops=n**3 / 3 + 2 * n**2, bytes=(n**2 + 2 * n) * bench.dtype.itemsize)},
            tolerance=1e-3 if bench.dtype == torch.float32 else None,
        )
    for n in bench.pick(smoke=(4,), quick=(64,), full=(64, 512)):
        yield Case(
            name="newton iteration, with the Hessian",
            axes={"n": n},
            inputs=partial(started, n=n),
            variants=(
                Variant(name="row by row, inverse", role="naive", call=row_by_row),
                Variant(name="torch.func, cholesky", role="strong", call=by_functions),
                Variant(name="newton", role="paper", call=by_optimiser),
            ),
            cost={
                "forward": Cost(flops=16 * n**3 + n**3 / 3, bytes=(5 * n**2 + 6 * n) * bench.dtype.itemsize)
            },
            tolerance=1e-3 if bench.dtype == torch.float32 else None,
        )
    for n in bench.pick(smoke=(4,), quick=(16, 64, 256), full=(16, 64, 256, 1024)):
        yield Case(
            name="logistic regression until 1e-4, float64",
            axes={"n": n},
            inputs=partial(regression, n=n),
            variants=(
                Variant(name="gradient descent", role="naive", call=partial(fit, by_descent)),
                Variant(name="torch LBFGS", role="strong", call=partial(fit, by_torch_lbfgs)),
                Variant(name="newton", role="paper", call=partial(fit, by_newton)),
            ),
            cost={"until": None},
        )
