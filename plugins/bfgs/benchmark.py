"""Times one update of the inverse Hessian, and whole minimisations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..newton.benchmark import by_torch_lbfgs, closure_of, fit, regression
from ..newton.model import Minimizer
from .model import BFGS, bfgs_update
from .rivals import Conjugate


def by_products(H: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """The update as written, with two multiplications of n × n matrices."""
    rho = 1 / (s @ y)
    V = torch.eye(len(s)).to(s) - rho * torch.outer(y, s)
    return V.mT @ H @ V + rho * torch.outer(s, s)


def by_rank_one(H: Tensor, s: Tensor, y: Tensor) -> Tensor:
    """The same update as three rank-one updates with BLAS."""
    rho, Hy = 1 / (s @ y), H @ y
    H = torch.addr(H, s, s, alpha=(rho * (1 + rho * (y @ Hy))).item())
    return H.addr_(Hy, s, alpha=-rho.item()).addr_(s, Hy, alpha=-rho.item())


def pair(generator: torch.Generator, *, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """A positive definite H, a step s, and a change y of the gradient along it."""
    factor = torch.randn(n, 2 * n, generator=generator)
    s, noise = torch.randn(2, n, generator=generator).unbind()
    H = factor @ factor.mT / (2 * n)
    # On some processors a float32 matrix multiplication is not symmetric to the last bit.
    return (H + H.mT) / 2, s, s + 0.3 * noise


def by_minimizer(make: Callable[..., Minimizer], most: int) -> Callable[..., int]:
    """Wraps an optimiser for `fit`."""

    def minimise(w: Tensor, loss: Callable[[], Tensor], target: float) -> int:
        optimizer = make([w], iterations=most, tolerance=target)
        optimizer.step(closure_of(w, loss, []))
        return optimizer.evaluations

    return minimise


def by_scipy(method: str, w: Tensor, loss: Callable[[], Tensor], target: float) -> int:
    from scipy.optimize import minimize

    def both(x: Any) -> tuple[float, Any]:
        w.data.copy_(torch.from_numpy(x))
        value = loss()
        (gradient,) = torch.autograd.grad(value, w)
        return value.item(), gradient.double().cpu().numpy()

    found = minimize(
        both, w.detach().double().cpu().numpy(), jac=True, method=method, options=stop(method, target, w)
    )
    w.data.copy_(torch.from_numpy(found.x))
    return int(found.nfev)


def stop(method: str, target: float, w: Tensor) -> dict[str, float]:
    if method == "L-BFGS-B":  # tests the largest entry of the gradient, not its norm
        return {"gtol": target / len(w) ** 0.5, "ftol": 0.0}
    return {"gtol": target, "norm": 2}


def fitted_by(make: Callable[..., Minimizer], most: int) -> Callable[..., Any]:
    return partial(fit, by_minimizer(make, most))


def minimisations(bench: Bench, scipy_method: str, ours: Variant) -> Iterator[Case]:
    """Fits a logistic regression by `ours`, gradient descent, torch's L-BFGS and scipy's `scipy_method`."""
    for n in bench.pick(smoke=(4,), quick=(64, 256), full=(64, 256, 1024)):
        yield Case(
            name="logistic regression until 1e-4, float64",
            axes={"n": n},
            inputs=partial(regression, n=n),
            variants=(
                Variant(
                    name="gradient descent",
                    role="naive",
                    call=fitted_by(partial(Conjugate, beta=False), 2000),
                ),
                Variant(name="torch LBFGS", role="strong", call=partial(fit, by_torch_lbfgs)),
                Variant(
                    name=f"scipy {scipy_method}",
                    role="vendor",
                    call=partial(fit, partial(by_scipy, scipy_method)),
                    needs=bench.needs("scipy"),
                ),
                ours,
            ),
            cost={"until": None},
        )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for n in bench.pick(smoke=(5,), quick=(64, 512), full=(64, 512, 2048)):
        yield Case(
            name="update of the inverse Hessian",
            axes={"n": n},
            inputs=partial(pair, n=n),
            variants=(
                Variant(name="products of matrices", role="naive", call=by_products),
                Variant(name="rank one, three times", role="strong", call=by_rank_one),
                Variant(name="bfgs", role="paper", call=bfgs_update),
            ),
            cost={"forward": Cost(flops=6 * n**2, bytes=(2 * n**2 + 2 * n) * bench.dtype.itemsize)},
        )
    yield from minimisations(bench, "BFGS", Variant(name="bfgs", role="paper", call=fitted_by(BFGS, 500)))
