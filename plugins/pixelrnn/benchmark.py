"""Times the diagonal BiLSTM, and pictures generated pixel by pixel with the whole PixelCNN."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import DiagonalBiLSTM, PixelNetwork, ResidualBlock, lstm_cell, sample, skew, unskew

Weights = Mapping[str, Tensor]
Generate = Callable[[PixelNetwork, Tensor, torch.Generator], Tensor]


def place_by_place(w: Weights, x: Tensor) -> Tensor:
    """Equation 3 in a loop over pixels, from the left and, on the mirrored map, from the right."""
    height, width = x.shape[2:]
    maps = []
    for side, image in enumerate((x, x.flip(3))):
        into, recurrent = w["input_to_state"][side], w["state_to_state"][side]
        zero = image.new_zeros(len(x), recurrent.shape[0] // 2)
        h, c = {}, {}
        for row in range(height):
            for column in range(width):
                beside, above = h.get((row, column - 1), zero), h.get((row - 1, column), zero)
                gates = image[:, :, row, column] @ into + w["bias"][side]
                gates = gates + torch.cat((beside, above), 1) @ recurrent
                state = lstm_cell(gates, c.get((row, column - 1), zero))
                h[row, column], c[row, column] = state
        rows = [torch.stack([h[row, column] for column in range(width)], 2) for row in range(height)]
        maps.append(torch.stack(rows, 2))
    return joined(w, x, maps[0], maps[1])


def joined(w: Weights, x: Tensor, left: Tensor, right: Tensor) -> Tensor:
    shifted = F.pad(right.flip(3)[:, :, :-1], (0, 0, 1, 0))
    return x + F.conv2d(left + shifted, w["up.weight"], w["up.bias"])


def side_after_side(w: Weights, x: Tensor) -> Tensor:
    """Process whole diagonals, one direction after the other: two matrix multiplications per step."""
    height, width = x.shape[2:]
    inside = skew(x.new_ones(height, width, 1)).unbind(1)
    maps = []
    for side, image in enumerate((x, x.flip(3))):
        fed = image.permute(0, 2, 3, 1) @ w["input_to_state"][side] + w["bias"][side]
        beside, above = w["state_to_state"][side].chunk(2)
        h = c = x.new_zeros(len(x), height, beside.shape[0])
        states = []
        for diagonal, kept in zip(skew(fed).unbind(2), inside, strict=True):
            lower = F.pad((h @ above)[:, :-1], (0, 0, 1, 0))
            h, c = (one * kept for one in lstm_cell(diagonal + h @ beside + lower, c))
            states.append(h)
        maps.append(unskew(torch.stack(states, 2), width).permute(0, 3, 1, 2))
    return joined(w, x, maps[0], maps[1])


def of_all_pixels(network: PixelNetwork, blank: Tensor, generator: torch.Generator) -> Tensor:
    """Run the network on the whole pictures for each pixel."""
    return sample(network, blank, 0, generator)


def picture_by_picture(network: PixelNetwork, blank: Tensor, generator: torch.Generator) -> Tensor:
    return torch.cat([of_all_pixels(network, one, generator) for one in blank.split(1)])


@torch.no_grad()
def of_receptive_fields(network: PixelNetwork, blank: Tensor, generator: torch.Generator) -> Tensor:
    """Run the network only on the rows and columns that the next pixel depends on.

    The first convolution sees three pixels in each direction, and each residual block one more.
    """
    x, reach = blank.clone(), 3 + len(network.layers)
    for row, column, colour in itertools.product(*map(range, (*x.shape[2:], x.shape[1]))):
        top, left = max(row - reach, 0), max(column - reach, 0)
        near = x[:, :, top : row + 1, left : column + reach + 1]
        odds = network(near)[:, colour, :, row - top, column - left].float().softmax(1).cpu()
        drawn = torch.multinomial(odds, 1, generator=generator)[:, 0]
        x[:, colour, row, column] = drawn.to(x) / (network.levels - 1)
    return x


def pictures(network: PixelNetwork, blank: Tensor, seed: Tensor, *, generate: Generate) -> dict[str, float]:
    """Generate pictures. Returns their number, and whether all pixels are between 0 and 1."""
    found = generate(network, blank, torch.Generator().manual_seed(int(seed)))
    return {"reached": float(((found >= 0) & (found <= 1)).all()), "pictures": float(len(found))}


def picture_case(batch: int, side: int, layers: int, h: int, levels: int) -> Case:
    def make() -> PixelNetwork:
        return PixelNetwork(ResidualBlock, layers, h, levels=levels)

    ways = (
        ("picture by picture", "naive", picture_by_picture),
        ("the pixel's receptive field", "strong", of_receptive_fields),
        ("all pixels each time", "paper", of_all_pixels),
    )
    return Case.of_module(
        make,
        name="pictures",
        axes={"side": side, "pictures": batch, "layers": layers},
        inputs=lambda g: (torch.zeros(batch, 1, side, side), torch.randint(2**31, (), generator=g)),
        variants=[
            Variant.of_module(make, partial(pictures, generate=way), name=name, role=role)
            for name, role, way in ways
        ],
        cost={"until": None},
    )


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(
        smoke=((2, 3, 4, 5),), quick=((32, 32, 16, 8),), full=((32, 32, 16, 8), (16, 128, 64, 28))
    )
    for batch, channels, h, side in sizes:
        make = partial(DiagonalBiLSTM, channels, h)
        places = batch * side * side
        weights = 2 * 4 * h * (channels + 2 * h) + h * channels
        yield Case.of_module(
            make,
            name="diagonal BiLSTM",
            axes={"side": side, "h": h},
            inputs=lambda g, batch=batch, channels=channels, side=side: (
                torch.randn(batch, channels, side, side, generator=g),
            ),
            variants=(
                Variant(name="pixel by pixel", role="naive", call=place_by_place),
                Variant(name="one direction after the other", role="strong", call=side_after_side),
                Variant.of_module(make, name="skewed, both directions at once", role="paper"),
            ),
            cost=Cost.products(
                2 * places * weights, (weights + 2 * places * channels) * bench.dtype.itemsize
            ),
            gradients=(0, 1),
        )
    yield picture_case(
        *bench.pick(smoke=(2, 4, 1, 3, 5), quick=(2, 12, 2, 16, 256), full=(4, 28, 7, 32, 256))
    )
