"""Implements the notebook's dream: gradient ascent with random shifts, over several octaves."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch 3 height width"]
Features = Float[Tensor, "batch channels rows columns"]
Objective = Callable[[Tensor], Tensor]  # maps images to a number for each


def energy(features: Features) -> Float[Tensor, " batch"]:
    """The notebook's objective, up to a factor: the mean of the squared activations."""
    return features.square().mean((1, 2, 3))


def likeness(features: Features, guide: Float[Tensor, "1 channels _ _"]) -> Float[Tensor, " batch"]:
    """The notebook's guided objective: each position's largest dot product with a position of the guide."""
    products = guide[0].flatten(1).T @ features.flatten(2)  # batch, places of the guide, places
    return products.amax(1).mean(1)


def step(images: Images, objective: Objective, *, size: float, shift: tuple[int, int] = (0, 0)) -> Images:
    """One step of gradient ascent, which changes an image's pixels by `size` on average. The image is rolled
    by `shift` rows and columns for the step, and rolled back."""
    rolled = images.roll(shift, (2, 3)).contiguous(memory_format=torch.channels_last).requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(objective(rolled).sum(), rolled)
    pace = size / gradient.abs().mean((1, 2, 3), keepdim=True)
    moved = torch.addcmul(rolled.detach(), gradient, pace)
    return moved.roll((-shift[0], -shift[1]), (2, 3)).clamp_(0, 1).contiguous()


def resize(images: Images, height: int, width: int) -> Float[Tensor, "batch 3 _ _"]:
    """Bilinear resizing with aligned corners, like scipy.ndimage.zoom in the notebook."""
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=True)


def dream(
    images: Images,
    objective: Objective,
    *,
    generator: torch.Generator,
    octaves: int = 4,
    scale: float = 1.4,
    steps: int = 10,
    size: float = 1.5 / 255,
    jitter: int = 32,
) -> list[Float[Tensor, "batch 3 _ _"]]:
    """Images after each octave, from the smallest to the largest. The last image is the dream. The defaults
    are the notebook's.

    octaves, scale  number of sizes, and the factor between neighbouring sizes
    steps, size     steps in each octave, and the mean change of a pixel per step
    jitter          the shift before a step is sampled from [-jitter, jitter], for rows and for columns
    """
    sizes = [images]
    for _ in range(octaves - 1):
        height, width = sizes[-1].shape[2:]
        sizes.append(resize(sizes[-1], round(height / scale), round(width / scale)))
    detail, dreamt = torch.zeros_like(sizes[-1]), []
    for base in reversed(sizes):
        detail = resize(detail, *base.shape[2:])
        image = base + detail
        for _ in range(steps):
            down, right = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
            image = step(image, objective, size=size, shift=(down, right))
        detail = image - base
        dreamt.append(image)
    return dreamt
