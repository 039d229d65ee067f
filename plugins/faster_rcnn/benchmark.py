"""Times the generation of anchors, and the whole detection pipeline including proposals."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..fast_rcnn.model import FastRCNN
from ..rcnn.model import RegionNet, warp
from ..rcnn.task import REGIONS, grouped
from .model import FasterRCNN, anchors_at, anchors_over

SIDES, RATIOS = (128.0, 256.0, 512.0), (0.5, 1.0, 2.0)


def one_by_one(base: Tensor, rows: int, columns: int) -> Tensor:
    boxes = []
    for row in range(rows):
        for column in range(columns):
            for x1, y1, x2, y2 in base.tolist():
                boxes.append((16 * column + x1, 16 * row + y1, 16 * column + x2, 16 * row + y2))
    return torch.tensor(boxes, dtype=base.dtype, device=base.device)


def by_meshgrid(base: Tensor, rows: int, columns: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(rows) * 16.0, torch.arange(columns) * 16.0, indexing="ij")
    shifts = torch.stack((x, y, x, y), -1).view(-1, 1, 4).to(base)
    return (shifts + base).view(-1, 4)


def broadcast(base: Tensor, rows: int, columns: int) -> Tensor:
    return anchors_over(base, rows, columns, 16)


@cache
def networks(dtype: torch.dtype, device: torch.device) -> tuple[RegionNet, FastRCNN, FasterRCNN]:
    torch.manual_seed(0)
    made = RegionNet(6), FastRCNN(5), FasterRCNN(5)
    return tuple(network.to(device, dtype) for network in made)


def regions(x: Tensor) -> Tensor:
    return grouped(x[0].float().cpu(), torch.Generator().manual_seed(0)).to(x.device)


def done(scores: Tensor) -> dict[str, float]:
    return {"reached": float(scores.isfinite().all()), "regions": scores.shape[-2]}


@torch.no_grad()
def rcnn(x: Tensor) -> dict[str, float]:
    boxes = regions(x)
    image = torch.zeros(len(boxes), dtype=torch.long, device=x.device)
    return done(networks(x.dtype, x.device)[0](warp(x, boxes.to(x), image)))


@torch.no_grad()
def fast(x: Tensor) -> dict[str, float]:
    return done(networks(x.dtype, x.device)[1](x, regions(x)[None])[0])


@torch.no_grad()
def faster(x: Tensor) -> dict[str, float]:
    return done(networks(x.dtype, x.device)[2](x, REGIONS)[1])


def scene(generator: torch.Generator) -> tuple[Tensor]:
    """A dark image with some bright boxes, similar to the scenes of the experiment."""
    x = 0.3 * torch.rand(1, 3, 48, 48, generator=generator)
    for left, top in torch.randint(36, (5, 2), generator=generator).tolist():
        x[:, :, top : top + 10, left : left + 6] = torch.rand(3, 1, 1, generator=generator).round() * 0.9
    return (x,)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for rows, columns in bench.pick(smoke=((2, 3),), quick=((38, 62),), full=((38, 62), (64, 128))):
        count = rows * columns * len(SIDES) * len(RATIOS)
        yield Case(
            name="anchors",
            axes={"rows": rows, "columns": columns},
            inputs=lambda g, rows=rows, columns=columns: (
                anchors_at(SIDES, RATIOS) * (0.5 + torch.rand(1, generator=g)),
                rows,
                columns,
            ),
            variants=(
                Variant(name="one by one", role="naive", call=one_by_one),
                Variant(name="mesh of shifts", role="strong", call=by_meshgrid),
                Variant(name="broadcast", role="paper", call=broadcast),
            ),
            cost={"forward": Cost(flops=4 * count, bytes=4 * count * bench.dtype.itemsize)},
        )
    yield Case(
        name="an image with its proposals",
        axes={"regions": REGIONS},
        inputs=scene,
        variants=(
            Variant(name="R-CNN", role="naive", call=rcnn),
            Variant(name="Fast R-CNN", role="strong", call=fast),
            Variant(name="Faster R-CNN", role="paper", call=faster),
        ),
        cost={"until": None},
    )
