"""Times layer normalisation: line by line, torch's version, and ours with a hand-written gradient."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from readtrack.plugin import Bench, Case, Variant, hookimpl

from ..batchnorm import cost
from .model import layer_norm, line_by_line


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    tokens = bench.pick(smoke=4, quick=1024, full=8192)
    for features in bench.pick(smoke=(8,), quick=(256, 1024), full=(1024, 4096, 8192)):
        yield case(tokens, features, bench.dtype.itemsize)


def case(tokens: int, features: int, itemsize: int) -> Case:
    def inputs(generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Vectors with a mean far from zero. The first vector has a small variance."""
        x = torch.randn(tokens, features, generator=generator) * 3 + 2
        x[0] = x[0] * 0.01 + 5
        return x, torch.rand(features, generator=generator) + 0.5, torch.randn(features, generator=generator)

    return Case(
        name="layer norm",
        axes={"features": features, "tokens": tokens},
        inputs=inputs,
        variants=(
            Variant(name="line by line", role="naive", call=line_by_line),
            Variant(
                name="torch layer_norm",
                role="strong",
                call=lambda x, weight, bias: F.layer_norm(x, x.shape[-1:], weight, bias),
            ),
            Variant(name="one gradient", role="paper", call=layer_norm),
        ),
        cost=cost((tokens, features), itemsize),
    )
