"""Times non-maximum suppression, and a network on warped regions."""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .boxes import overlaps, unsuppressed
from .model import RegionNet, warp


def scattered(generator: torch.Generator, images: int, boxes: int, side: int) -> tuple[Tensor, Tensor]:
    """Boxes clustered around a few places, as detections are, and their scores."""
    places = torch.rand(images, 8, 2, generator=generator) * side
    near = torch.randint(8, (images, boxes), generator=generator)
    middle = places.gather(1, near[..., None].expand(-1, -1, 2))
    middle = middle + 0.04 * side * torch.randn(images, boxes, 2, generator=generator)
    half = side * (0.05 + 0.1 * torch.rand(images, boxes, 2, generator=generator))
    return torch.cat((middle - half, middle + half), -1), torch.rand(images, boxes, generator=generator)


def pair_by_pair(boxes: Tensor, scores: Tensor) -> Tensor:
    """Process each image separately, and compare each box with each kept box."""
    stays = torch.zeros_like(scores, dtype=torch.bool)
    for i, (mine, ranks) in enumerate(zip(boxes.tolist(), scores.tolist(), strict=True)):
        kept: list[int] = []
        for a in sorted(range(len(ranks)), key=lambda j: -ranks[j]):
            if all(shared(mine[a], mine[b]) <= 0.3 for b in kept):
                kept.append(a)
        stays[i, kept] = True
    return stays


def shared(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def image_by_image(boxes: Tensor, scores: Tensor) -> Tensor:
    """Process one image after another. The best remaining box removes the boxes that overlap it."""
    stays = torch.zeros_like(scores, dtype=torch.bool)
    for i in range(len(boxes)):
        left = scores[i].argsort(descending=True, stable=True)
        while len(left):
            stays[i, left[0]] = True
            left = left[1:][overlaps(boxes[i, left[:1]], boxes[i, left[1:]])[0] <= 0.3]
    return stays


def all_images(boxes: Tensor, scores: Tensor) -> Tensor:
    return unsuppressed(boxes, scores, 0.3)


Weights = Mapping[str, Tensor]


def one_by_one(network: RegionNet, w: Weights, images: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    each = range(len(boxes))
    return torch.cat([in_one_batch(network, w, images, boxes[i : i + 1], image[i : i + 1]) for i in each])


def sampled(network: RegionNet, w: Weights, images: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Warp with `grid_sample`, which needs a copy of the image for each of its regions."""
    height, width = images.shape[2:]
    line = ((2 * torch.arange(16, device=boxes.device, dtype=boxes.dtype) + 1) / 16 - 1) * 16 / 14
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    x, y = (middle[:, i : i + 1] + half[:, i : i + 1] * line for i in (0, 1))
    x, y = (
        (2 * x / width - 1)[:, None].expand(-1, 16, -1),
        (2 * y / height - 1)[:, :, None].expand(-1, -1, 16),
    )
    grid = torch.stack((x, y), -1)
    warped = F.grid_sample(images[image], grid, padding_mode="border", align_corners=False)
    return functional_call(network, dict(w), (warped,))


def in_one_batch(network: RegionNet, w: Weights, images: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    return functional_call(network, dict(w), (warp(images, boxes, image),))


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for images, boxes in bench.pick(smoke=((2, 12),), quick=((32, 100),), full=((32, 300), (1, 2000))):
        pairs = images * boxes * (boxes - 1) / 2
        yield Case(
            name="non-maximum suppression",
            axes={"boxes": boxes, "images": images},
            inputs=lambda g, images=images, boxes=boxes: scattered(g, images, boxes, 100),
            variants=(
                Variant(name="pair by pair", role="naive", call=pair_by_pair),
                Variant(name="image by image", role="strong", call=image_by_image),
                Variant(name="all images at once", role="paper", call=all_images),
            ),
            cost={"forward": Cost(flops=12 * pairs, bytes=21 * images * boxes)},
        )
    with torch.device("meta"):
        network = RegionNet(6)
    for regions in bench.pick(smoke=(3,), quick=(100,), full=(100, 1000)):
        flops = 2 * regions * (256 * 75 * 16 + 64 * 9 * (16 * 32 + 32 * 32) + 512 * 64 + 64 * 6)
        weights = sum(w.numel() for w in network.parameters())

        def inputs(g: torch.Generator, regions: int = regions) -> tuple[Tensor, ...]:
            corner = 30 * torch.rand(regions, 2, generator=g)
            boxes = torch.cat((corner, corner + 8 + 10 * torch.rand(regions, 2, generator=g)), 1)
            return torch.rand(4, 3, 48, 48, generator=g), boxes, torch.randint(4, (regions,), generator=g)

        yield Case.of_module(
            lambda: RegionNet(6),
            name="regions through the network",
            axes={"regions": regions},
            inputs=inputs,
            variants=(
                Variant(name="one by one", role="naive", call=lambda *given: one_by_one(network, *given)),
                Variant(name="by grid_sample", role="strong", call=lambda *given: sampled(network, *given)),
                Variant(name="in one batch", role="paper", call=lambda *given: in_one_batch(network, *given)),
            ),
            cost={"forward": Cost(flops=flops, bytes=(weights + 4 * 48**2 * 3) * bench.dtype.itemsize)},
        )
