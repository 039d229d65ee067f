"""Times RoI pooling, a dense layer compressed by SVD, and both detectors on an image's regions."""

from collections.abc import Iterator
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Claim, Cost, Figure, Speedup, Variant, hookimpl

from ..rcnn.model import RegionNet, warp
from .model import FastRCNN, roi_pool

FASTER = Claim(
    name="time per image, R-CNN and Fast R-CNN",
    sentence="With 100 regions per image, Fast R-CNN is at least three times as fast as R-CNN.",
    paper=Figure(
        "With VGG16, R-CNN takes 146 times as long per image (47.0 s against 0.32 s)",
        where="table 4",
        read="table",
    ),
    rule=(Speedup("an image", over="strong", threshold=3.0, axes={"regions": 100}, mode="until"),),
    deviations="The images have 48 × 48 pixels and 100 regions instead of 2,000. R-CNN runs all of them in "
    "one batch.",
)

SIZE, SCALE = 4, 0.5


def edges(box: list[float], rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    """Row and column bounds of each cell of a region: top, bottom, left, right."""
    x1, y1, x2, y2 = (int(side * SCALE + 0.5) for side in box)
    high, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    for i in range(SIZE):
        for j in range(SIZE):
            top, bottom = y1 + i * high // SIZE, y1 - (-(i + 1) * high // SIZE)
            left, right = x1 + j * wide // SIZE, x1 - (-(j + 1) * wide // SIZE)
            yield min(top, rows), min(bottom, rows), min(left, columns), min(right, columns)


def cell_by_cell(maps: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    pooled = []
    for box, i in zip(boxes.tolist(), image.tolist(), strict=True):
        for top, bottom, left, right in edges(box, *maps.shape[2:]):
            cell = maps[i, :, top:bottom, left:right]
            pooled.append(cell.flatten(1).max(1).values if cell.numel() else maps.new_zeros(maps.shape[1]))
    return torch.stack(pooled).view(len(boxes), SIZE, SIZE, -1).permute(0, 3, 1, 2)


def region_by_region(maps: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """`adaptive_max_pool2d` of each region. It has the same cells if the region lies within the maps."""
    last = maps.shape[3] - 1
    corners = (boxes.float() * SCALE + 0.5).long().clamp(0, last).tolist()
    pooled = [
        F.adaptive_max_pool2d(maps[i, :, y1 : max(y1, y2) + 1, x1 : max(x1, x2) + 1], SIZE)
        for (x1, y1, x2, y2), i in zip(corners, image.tolist(), strict=True)
    ]
    return torch.stack(pooled)


def by_tables(maps: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    return roi_pool(maps, boxes, image, size=SIZE, scale=SCALE)


def regions_in(side: int, count: int, generator: torch.Generator, images: int = 1) -> tuple[Tensor, Tensor]:
    """Boxes of 8 to 20 pixels inside the images, and the index of each box's image."""
    sides = 8 + 12 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (side - 2 - sides)
    return torch.cat((corner, corner + sides), 1), torch.randint(images, (count,), generator=generator)


@cache
def networks(dtype: torch.dtype, device: torch.device) -> tuple[RegionNet, FastRCNN]:
    torch.manual_seed(0)
    return RegionNet(6).to(device, dtype), FastRCNN(5).to(device, dtype)


@torch.no_grad()
def a_region_at_a_time(x: Tensor, boxes: Tensor, at_once: int = 1) -> dict[str, float]:
    """R-CNN: each region is warped and run through all layers."""
    network, _ = networks(x.dtype, x.device)
    image = torch.zeros(len(boxes), dtype=torch.long, device=x.device)
    parts = zip(boxes.split(at_once), image.split(at_once), strict=True)
    scores = torch.cat([network(warp(x, part, which)) for part, which in parts])
    return {"reached": float(scores.isfinite().all()), "regions": len(scores)}


@torch.no_grad()
def maps_shared(x: Tensor, boxes: Tensor) -> dict[str, float]:
    """Fast R-CNN: the convolutions run once on the image."""
    _, network = networks(x.dtype, x.device)
    scores, _ = network(x, boxes[None])
    return {"reached": float(scores.isfinite().all()), "regions": scores.shape[1]}


def two_layers(x: Tensor, first: Tensor, second: Tensor, bias: Tensor) -> Tensor:
    return F.linear(F.linear(x, first), second, bias)


def one_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight, bias)


def multiplied(x: Tensor, first: Tensor, second: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The product of the two layers, which is the layer that they approximate."""
    return x, second @ first, bias


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    itemsize = bench.dtype.itemsize
    for regions, maps in bench.pick(smoke=((5, 3),), quick=((128, 32),), full=((128, 32), (128, 512))):

        def inputs(g: torch.Generator, regions: int = regions, maps: int = maps) -> tuple[Tensor, ...]:
            return torch.randn(2, maps, 24, 24, generator=g), *regions_in(48, regions, g, 2)

        yield Case(
            name="RoI pooling",
            axes={"regions": regions, "maps": maps},
            inputs=inputs,
            variants=(
                Variant(name="cell by cell", role="naive", call=cell_by_cell),
                Variant(name="adaptive pooling", role="strong", call=region_by_region),
                Variant(name="tables of places", role="paper", call=by_tables),
            ),
            cost=Cost.elementwise(
                2 * maps * 24**2 + regions * maps * 16, itemsize=itemsize, flops=1, tensors=1
            ),
            gradients=(0,),
        )
    for regions in bench.pick(smoke=(3,), quick=(10, 100), full=(10, 100, 1000)):
        yield Case(
            name="an image",
            axes={"regions": regions},
            inputs=lambda g, n=regions: (torch.randn(1, 3, 48, 48, generator=g), regions_in(48, n, g)[0]),
            variants=(
                Variant(name="R-CNN, one by one", role="naive", call=a_region_at_a_time),
                Variant(
                    name="R-CNN, one batch", role="strong", call=partial(a_region_at_a_time, at_once=10**6)
                ),
                Variant(name="Fast R-CNN", role="paper", call=maps_shared),
            ),
            cost={"until": None},
        )
    for rows, u, v, t in bench.pick(
        smoke=((2, 6, 5, 2),), quick=((64, 1024, 4096, 256),), full=((64, 4096, 25_088, 1024),)
    ):
        yield Case(
            name="a dense layer of that rank",
            axes={"outputs": u, "inputs": v, "rank": t, "rows": rows},
            inputs=lambda g, rows=rows, u=u, v=v, t=t: (
                torch.randn(rows, v, generator=g),
                torch.randn(t, v, generator=g) / v**0.5,
                torch.randn(u, t, generator=g) / t**0.5,
                torch.randn(u, generator=g),
            ),
            variants=(
                Variant(name="product of matrices", role="naive", call=one_layer, prepare=multiplied),
                Variant(name="one layer", role="strong", call=one_layer, prepare=multiplied),
                Variant(name="two layers", role="paper", call=two_layers),
            ),
            cost={
                "forward": Cost(flops=2 * rows * t * (u + v), bytes=(t * (u + v) + rows * (u + v)) * itemsize)
            },
        )
