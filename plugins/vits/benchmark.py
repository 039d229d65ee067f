"""Times the duration predictor's splines, and one-stage against two-stage synthesis, at the papers' sizes."""

import functools
import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .. import glow_tts
from ..glow_tts.benchmark import LENGTH, parallel
from ..hifigan import V1, Generator, Version
from .model import VITS, Sizes
from .spline import LEAST, spline

BOUND = 5.0
TINY = Version(8, (4, 2), (8, 4), (3, 5), ((1, 3), (1, 3)))


def corners(sizes: Tensor) -> Tensor:
    """Bin edges from -5 to 5, with widths from a softmax."""
    parts = LEAST + (1 - LEAST * sizes.shape[-1]) * sizes.softmax(-1)
    return F.pad(2 * BOUND * parts.cumsum(-1), (1, 0)) - BOUND


def steepness(slopes: Tensor) -> Tensor:
    ends = math.log(math.expm1(1 - LEAST))
    return LEAST + F.softplus(F.pad(slopes, (1, 1), value=ends))


def piece(place: Tensor, low: Tensor, height: Tensor, mean: Tensor, first: Tensor, last: Tensor) -> Tensor:
    between = place * (1 - place)
    rise = height * (mean * place.square() + first * between)
    return low + rise / (mean + (first + last - 2 * mean) * between)


def every_bin(x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor) -> Tensor:
    """Evaluate every bin's formula, then select the bin of x."""
    at, up, rise = corners(widths), corners(heights), steepness(slopes)
    width, height = at.diff(dim=-1), up.diff(dim=-1)
    place = ((x.unsqueeze(-1) - at[..., :-1]) / width).clamp(0, 1)
    values = piece(place, up[..., :-1], height, height / width, rise[..., :-1], rise[..., 1:])
    index = (at[..., 1:-1] <= x.unsqueeze(-1)).sum(-1, keepdim=True)
    return torch.where(x.abs() <= BOUND, values.gather(-1, index).squeeze(-1), x)


def inside_only(x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor) -> Tensor:
    """Evaluate only values within the bounds, and find each bin by bisection."""
    inside = x.abs() <= BOUND
    given = x[inside].unsqueeze(-1)
    at, up, rise = corners(widths[inside]), corners(heights[inside]), steepness(slopes[inside])
    index = torch.searchsorted(at[..., 1:-1].contiguous(), given, right=True)
    left, low, first = (one.gather(-1, index) for one in (at, up, rise))
    right, high, last = (one.gather(-1, index + 1) for one in (at, up, rise))
    width, height = right - left, high - low
    values = piece((given - left) / width, low, height, height / width, first, last)
    return x.masked_scatter(inside, values)


def values_only(x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor) -> Tensor:
    return spline(x, widths, heights, slopes, BOUND)[0]


@functools.cache
def one_stage(sizes: Sizes) -> VITS:
    """A model with random weights, built once, because only the time from text to wave is measured."""
    return VITS(sizes).eval()


@functools.cache
def two_stages(first: glow_tts.Sizes, second: Version, normed: bool) -> tuple[glow_tts.GlowTTS, Generator]:
    vocoder = Generator(second, first.bands)
    return parallel(first), vocoder.normed() if normed else vocoder


@torch.no_grad()
def at_once(sizes: Sizes, text: Tensor) -> dict[str, float]:
    model = one_stage(sizes).to(text.device)
    wave, lasts = model.speak(text.unsqueeze(0), torch.tensor([len(text)]), rhythm=0.0, length=LENGTH)
    return {"reached": float(wave.isfinite().all()), "frames": float(lasts.sum())}


@torch.no_grad()
def one_after_the_other(
    first: glow_tts.Sizes, second: Version, normed: bool, text: Tensor
) -> dict[str, float]:
    speaker, vocoder = (one.to(text.device) for one in two_stages(first, second, normed))
    mel, lasts = speaker.speak(text, length=LENGTH)
    wave = vocoder(mel.unsqueeze(0))
    return {"reached": float(wave.isfinite().all()), "frames": float(lasts.sum())}


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, symbols, bins = bench.pick(smoke=(2, 5, 4), quick=(16, 200, 10), full=(64, 200, 10))
    values = batch * symbols

    def inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
        """One value in ten is out of bounds. Bins are about as uneven as the predictor's."""
        return 3 * torch.randn(batch, symbols, generator=generator), *(
            0.3 * torch.randn(batch, symbols, count, generator=generator) for count in (bins, bins, bins - 1)
        )

    flops, moved = values * (12 * bins + 40), values * (3 * bins + 1) * bench.dtype.itemsize
    yield Case(
        name="spline",
        axes={"symbols": symbols, "batch": batch, "bins": bins},
        inputs=inputs,
        variants=(
            Variant(name="every bin", role="naive", call=every_bin),
            Variant(name="inside only", role="strong", call=inside_only),
            Variant(name="one bin each", role="paper", call=values_only),
        ),
        cost={
            "forward": Cost(flops=flops, bytes=moved),
            "forward+backward": Cost(flops=3 * flops, bytes=2 * moved),
        },
    )
    count = bench.pick(smoke=2, quick=4, full=60)
    small = Sizes(symbols=9, hidden=8, latents=4, ffn=8, layers=1, posterior=1, depth=1, version=TINY)
    sizes = bench.pick(smoke=small, quick=Sizes(), full=Sizes())
    tiny = glow_tts.Sizes(
        symbols=9, bands=4, hidden=8, ffn=8, layers=1, prenet=1, durations=8, channels=8, blocks=2, depth=1
    )
    first = bench.pick(smoke=tiny, quick=glow_tts.Sizes(), full=glow_tts.Sizes())
    second = bench.pick(smoke=TINY, quick=V1, full=V1)
    yield Case(
        name="text to wave",
        axes={"symbols": count, "frames": 3 * count},
        inputs=lambda g: (torch.randint(9, (count,), generator=g),),
        variants=(
            Variant(
                name="two stages, norms left on",
                role="naive",
                call=partial(one_after_the_other, first, second, True),
            ),
            Variant(
                name="two stages", role="strong", call=partial(one_after_the_other, first, second, False)
            ),
            Variant(name="one stage", role="paper", call=partial(at_once, sizes)),
        ),
        cost={"until": None},
    )
