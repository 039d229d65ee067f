"""Times guided noise prediction (with the text and without it, as in every denoising step)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..clip import TextTower
from .model import Diffusion, guided
from .unet import UNet

VOCAB, WORDS, SCALE = 50, 16, 5.0


def separate(network: Diffusion, z: Tensor, t: Tensor, ids: Tensor, empty: Tensor) -> Tensor:
    """Process one text after the other."""
    return guided(network(z, t, ids), network(z, t, empty), SCALE)


def together(network: Diffusion, z: Tensor, t: Tensor, ids: Tensor, empty: Tensor) -> Tensor:
    """Process both texts in one batch."""
    return network.with_text(ids, empty, SCALE, guided)(z, t)


def channels_last(weights: dict[str, Tensor], z: Tensor, *others: Tensor) -> tuple[object, ...]:
    """The same data in channels-last memory format, which suits convolutions."""
    last = torch.channels_last
    filters = {n: w.contiguous(memory_format=last) if w.dim() == 4 else w for n, w in weights.items()}
    return filters, z.contiguous(memory_format=last), *others


def make(widths: Sequence[int], channels: int = 4) -> Diffusion:
    text = TextTower(VOCAB, context=WORDS, width=widths[0], heads=2, layers=2, dim=widths[0])
    heads_and_groups = {"heads": 2, "groups": widths[0] // 4}
    return Diffusion(text, UNet(channels, widths, 1, widths[0], attention=(0,), **heads_and_groups))


def inputs(generator: torch.Generator, batch: int, side: int) -> tuple[Tensor, ...]:
    z = torch.randn(batch, 4, side, side, generator=generator)
    ids = torch.randint(VOCAB, (2, batch, WORDS), generator=generator)
    return z, torch.randint(1000, (batch,), generator=generator), *ids.unbind(0)


def forward_flops(build: Callable[[], nn.Module], *given: Tensor) -> float:
    """FLOPs of a forward pass, counted from shapes only."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build()(*(one.to("meta") for one in given))
    return float(counter.get_total_flops())


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=(((8, 16), 1, 4),),
        quick=(((32, 64), 2, 16),),
        full=(((32, 64), 2, 16), ((64, 128), 2, 32)),
    )
    for widths, batch, side in sizes:
        build = partial(make, widths)
        z, t, ids, _ = inputs(torch.Generator(), batch, side)
        with torch.device("meta"):
            parameters = sum(weight.numel() for weight in build().parameters())
        moved = (parameters + 2 * z.numel()) * bench.dtype.itemsize
        yield Case.of_module(
            build,
            name="guided noise",
            axes={"side": side, "width": widths[0], "batch": batch},
            inputs=partial(inputs, batch=batch, side=side),
            variants=(
                Variant.of_module(build, separate, name="one text after the other", role="naive"),
                Variant.of_module(
                    build, together, name="one batch, channels last", role="strong", prepare=channels_last
                ),
                Variant.of_module(build, together, name="one batch of both", role="paper"),
            ),
            cost={"forward": Cost(flops=2 * forward_flops(build, z, t, ids), bytes=moved)},
        )
