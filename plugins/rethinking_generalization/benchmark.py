"""Times three ways to memorise n labels: a dense solver, a triangular solver, and differences of slopes."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Points, memorise


def system(z: Points, y: Points) -> tuple[Float[Tensor, "count count"], Points]:
    """The triangular matrix max(z_i - b_j, 0) with z sorted, and y in the same order."""
    single = torch.promote_types(z.dtype, torch.float32)
    z, order = z.to(single).sort()
    b = torch.cat((z[:1] - 1, z[:-1]))
    return F.relu(z[:, None] - b), y.to(single)[order]


def dense(z: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.solve(*system(z, y))


def triangular(z: Tensor, y: Tensor) -> Tensor:
    matrix, y = system(z, y)
    return torch.linalg.solve_triangular(matrix, y[:, None], upper=False)[:, 0]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for count in bench.pick(smoke=(16,), quick=(128, 512), full=(512, 2048, 8192)):
        yield Case(
            name="memorise",
            axes={"examples": count},
            inputs=lambda generator, count=count: (
                torch.randperm(count, generator=generator).float(),
                torch.randn(count, generator=generator),
            ),
            variants=(
                Variant(name="dense solve", role="naive", call=dense),
                Variant(name="triangular solve", role="strong", call=triangular),
                Variant(name="differences of slopes", role="paper", call=lambda z, y: memorise(z, y)[1]),
            ),
            tolerance=1e-3 if bench.dtype.itemsize >= 4 else None,
            cost={"forward": Cost(flops=4 * count, bytes=4 * count * bench.dtype.itemsize)},
        )
