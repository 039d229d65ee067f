"""Times guided noise prediction (with and without the text, as in every step), and whole pictures."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..clip import TextTower
from ..ddpm import Schedule
from .autoencoder import Autoencoder
from .model import Diffusion, denoise, guided, scaled_linear_schedule
from .unet import UNet

VOCAB, WORDS, SCALE, LIMIT = 50, 16, 5.0, 3.0


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


class Painter(nn.Module):
    """Both stages: the diffusion model and the autoencoder."""

    def __init__(self, widths: Sequence[int], decoder: Sequence[int]) -> None:
        super().__init__()
        self.diffusion = make(widths)
        self.autoencoder = Autoencoder(3, 4, decoder, 1, groups=decoder[0] // 4, attends=False)


def schedule_on(device: torch.device) -> Schedule:
    return Schedule(scaled_linear_schedule().beta.to(device))


def painted(network: Painter, z: Tensor, ids: Tensor, empty: Tensor, *, steps: int) -> Tensor:
    """Denoise latents, and decode them to pictures."""
    predict = network.diffusion.with_text(ids, empty, SCALE, guided)
    return network.autoencoder.decode(denoise(schedule_on(z.device), predict, z, steps, LIMIT))


def text_after_text(network: Painter, z: Tensor, ids: Tensor, empty: Tensor, *, steps: int) -> Tensor:
    """Encode both texts in every step, and predict the noise for one after the other."""

    def predict(z: Tensor, t: Tensor) -> Tensor:
        return separate(network.diffusion, z, t, ids, empty)

    return network.autoencoder.decode(denoise(schedule_on(z.device), predict, z, steps, LIMIT))


def with_tables(network: Painter, z: Tensor, ids: Tensor, empty: Tensor, *, steps: int) -> Tensor:
    """DDIM steps whose factors are plain numbers, computed once."""
    kept = scaled_linear_schedule().alpha_bar
    times = torch.linspace(len(kept) - 1, -1, steps + 1).round().long().tolist()
    predict = network.diffusion.with_text(ids, empty, SCALE, guided)
    for now, before in pairwise(times):
        own, later = kept[now].item(), kept[before].item() if before >= 0 else 1.0
        noise = predict(z, torch.full((len(z),), now, device=z.device))
        z0 = torch.add(z, noise, alpha=-((1 - own) ** 0.5)).div_(own**0.5).clamp_(-LIMIT, LIMIT)
        # The noise is the one that leads from the clamped data to z.
        ratio = ((1 - later) / (1 - own)) ** 0.5
        z = torch.add(z * ratio, z0, alpha=later**0.5 - ratio * own**0.5)
    return network.autoencoder.decode(z)


def picture_case(bench: Bench) -> Case:
    widths, decoder, batch, side, steps = bench.pick(
        smoke=((8, 16), (8, 8), 2, 4, 3),
        quick=((32, 64), (16, 32), 2, 8, 4),
        full=((64, 128), (32, 64, 64, 64), 2, 32, 10),
    )
    build = partial(Painter, widths, decoder)
    z, t, ids, _ = inputs(torch.Generator(), batch, side)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = build()
        network.autoencoder.decode(z.to("meta"))
    decoding = counter.get_total_flops()
    parameters = sum(weight.numel() for weight in network.parameters())

    def drawn(generator: torch.Generator) -> tuple[Tensor, ...]:
        z, _, ids, empty = inputs(generator, batch, side)
        return z, ids, empty

    pixels = side * 2 ** (len(decoder) - 1)
    return Case.of_module(
        build,
        name="pictures",
        axes={"steps": steps, "side": pixels, "pictures": batch, "width": widths[0]},
        inputs=drawn,
        variants=(
            Variant.of_module(
                build, partial(text_after_text, steps=steps), name="one text after the other", role="naive"
            ),
            Variant.of_module(
                build,
                partial(with_tables, steps=steps),
                name="one batch, channels last",
                role="strong",
                prepare=channels_last,
            ),
            Variant.of_module(build, partial(painted, steps=steps), name="one batch of both", role="paper"),
        ),
        cost={
            "forward": Cost(
                flops=2 * steps * forward_flops(partial(make, widths), z, t, ids) + decoding,
                bytes=(steps * parameters + batch * 3 * pixels**2) * bench.dtype.itemsize,
            )
        },
        together=True,
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=(((8, 16), 1, 4),),
        quick=(),  # whole pictures consist of such steps
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
    yield picture_case(bench)
