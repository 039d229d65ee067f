"""Saliency maps, class pictures, and baseline maps.

Dimensions: questions (pairs of an image and a class), height, width.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "questions 3 height width"]
Classes = Int64[Tensor, " questions"]
Map = Float[Tensor, "questions height width"]


def class_gradient(network: Callable[[Tensor], Tensor], images: Images, classes: Classes) -> Images:
    """Section 3: the gradient of each image's class score, before the softmax."""
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        scores = network(leaf).gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(scores, leaf)
    return gradient


def saliency(network: Callable[[Tensor], Tensor], images: Images, classes: Classes) -> Map:
    """Section 3.1: the largest magnitude of the gradient over the three colour channels."""
    return class_gradient(network, images, classes).abs().amax(1)


def brightness(images: Images) -> Map:
    """Each pixel's largest colour channel. Does not use the network."""
    return images.amax(1)


def edges(images: Images) -> Map:
    """The largest absolute difference in any channel, summed over the four neighbours.

    Does not use the network.
    """
    map_ = torch.zeros_like(images[:, 0])
    down, across = ((images.diff(dim=axis)).abs().amax(1) for axis in (2, 3))
    map_[:, 1:] += down
    map_[:, :-1] += down
    map_[:, :, 1:] += across
    map_[:, :, :-1] += across
    return map_


def class_model(
    network: Callable[[Tensor], Tensor],
    start: Images,
    classes: Classes,
    *,
    mean: float = 0.3,
    steps: int = 200,
    rate: float = 0.05,
    decay: float = 20.0,
) -> Images:
    """Section 2, equation 1: maximise a class score minus `decay` × the mean square of the image.

    start  initial image: zeros in the paper, noise if the network has no gradient at zero
    mean   mean of all pixels of the data, added to the network's input
    rate   length of each step
    """
    drawn = start.detach().requires_grad_()
    with torch.enable_grad():
        for _ in range(steps):
            scores = network(mean + drawn).gather(1, classes[:, None])[:, 0]
            objective = scores - decay * drawn.square().mean((1, 2, 3))
            (gradient,) = torch.autograd.grad(objective.sum(), drawn)
            norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
            drawn = (drawn + rate * gradient / norm[:, None, None, None]).detach().requires_grad_()
    return (mean + drawn).detach()
