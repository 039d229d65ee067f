"""Times Hessian-vector products for a network with one hidden layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Product, hessian_product, lanczos, reverse_product


def loss(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The loss of a network with 32 inputs and 10 classes. The length of w determines the hidden size."""
    hidden = (len(w) - 10) // 43
    w1, b1, w2, b2 = w.split((32 * hidden, hidden, 10 * hidden, 10))
    h = torch.tanh(F.linear(x, w1.view(hidden, 32), b1))
    return F.cross_entropy(F.linear(h, w2.view(10, hidden), b2), y)


def by_matrix(w: Tensor, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.func.hessian(lambda w: loss(w, x, y))(w) @ v


def by_torch(w: Tensor, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The Hessian-vector product by reverse over reverse, since H is symmetric."""
    return torch.autograd.functional.vhp(lambda w: loss(w, x, y), w, v)[1]


def r_operator(w: Tensor, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return hessian_product(lambda weights: loss(weights["w"], x, y), {"w": w})(v)


def largest(product: Product, v: Tensor, *, products: int) -> Tensor:
    """Lanczos's estimate of the largest eigenvalue."""
    return lanczos(product, v, products).values[-1:]


def lanczos_by_matrix(w: Tensor, v: Tensor, x: Tensor, y: Tensor, *, products: int) -> Tensor:
    H = torch.func.hessian(lambda w: loss(w, x, y))(w)
    return largest(lambda u: H @ u, v, products=products)


def lanczos_by_torch(w: Tensor, v: Tensor, x: Tensor, y: Tensor, *, products: int) -> Tensor:
    return largest(lambda u: by_torch(w, u, x, y), v, products=products)


def lanczos_on_graph(w: Tensor, v: Tensor, x: Tensor, y: Tensor, *, products: int) -> Tensor:
    """Builds the gradient's graph once per call."""
    with torch.enable_grad():
        product = reverse_product(lambda weights: loss(weights["w"], x, y), {"w": w})
        return largest(product, v, products=products).detach()


def network(generator: torch.Generator, *, rows: int, hidden: int) -> tuple[Tensor, ...]:
    count = 43 * hidden + 10
    w, v = torch.randn(2, count, generator=generator).unbind()
    x = torch.randn(rows, 32, generator=generator)
    return w / 8, v, x, torch.randint(10, (rows,), generator=generator)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(smoke=((5, 2),), quick=((256, 8), (256, 32)), full=((256, 32), (2048, 128)))
    for rows, hidden in sizes:
        weights = 43 * hidden + 10
        yield Case(
            name="Hessian-vector product",
            axes={"weights": weights, "rows": rows},
            inputs=partial(network, rows=rows, hidden=hidden),
            variants=(
                Variant(name="full matrix", role="naive", call=by_matrix),
                Variant(name="reverse over reverse", role="strong", call=by_torch),
                Variant(name="forward over reverse", role="paper", call=r_operator),
            ),
            cost={
                "forward": Cost(
                    flops=12 * rows * weights, bytes=(3 * weights + 33 * rows) * bench.dtype.itemsize
                )
            },
            tolerance=1e-3 if bench.dtype == torch.float32 else None,
        )
        products = bench.pick(smoke=5, quick=40, full=40)
        yield Case(
            name=f"largest eigenvalue, {products} products",
            axes={"weights": weights, "rows": rows},
            inputs=partial(network, rows=rows, hidden=hidden),
            variants=[
                Variant(name=name, role=role, call=partial(call, products=products))
                for name, role, call in (
                    ("full matrix", "naive", lanczos_by_matrix),
                    ("reverse over reverse", "strong", lanczos_by_torch),
                    ("reverse over reverse, graph kept", "paper", lanczos_on_graph),
                )
            ],
            cost={
                "forward": Cost(
                    flops=12 * products * rows * weights,
                    bytes=products * (3 * weights + 33 * rows) * bench.dtype.itemsize,
                )
            },
            tolerance=1e-3 if bench.dtype == torch.float32 else None,
        )
