"""Implements Grad-CAM, and the class activation map that it generalises.

Dimensions: questions (each an image and a class), maps, rows, columns (of the last maps), height, width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ..saliency.network import PairNet

Maps = Float[Tensor, "questions maps rows columns"]
Heat = Float[Tensor, "questions rows columns"]
Classes = Int64[Tensor, " questions"]


def grad_cam(
    features: Callable[[Tensor], Tensor],
    head: Callable[[Tensor], Tensor],
    images: Float[Tensor, "questions channels height width"],
    classes: Classes,
) -> Heat:
    """Equations 1 and 2: the regions of the last maps that support the class.

    features  the layers from the images to the last maps
    head      the layers from the last maps to the logits; there may be any number of them

    The backward pass ends at the maps, so no gradient is computed for the pixels.
    """
    with torch.no_grad():
        maps = features(images)
    leaf = maps.detach().requires_grad_()
    with torch.enable_grad():
        scores = head(leaf).gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(scores, leaf)
    return weighted(maps, gradient.mean((2, 3)))  # equation 1: a map's weight is its mean gradient


def weighted(maps: Maps, weights: Float[Tensor, "questions maps"]) -> Heat:
    """Equation 2: the positive part of the weighted sum of the maps."""
    return (maps * weights[:, :, None, None]).sum(1).relu()


def cam(maps: Maps, weight: Float[Tensor, "classes maps"], classes: Classes) -> Heat:
    """The class activation map (Zhou et al. 2016), for average pooling and a linear layer after the maps.

    Grad-CAM equals its positive part, divided by the number of positions.
    """
    return torch.einsum("qmrc,qm->qrc", maps, weight[classes])


def enlarge(heat: Heat, height: int, width: int) -> Float[Tensor, "questions {height} {width}"]:
    """Bilinear upsampling to the image's size."""
    return F.interpolate(heat[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def grad_cam_of(
    network: PairNet, images: Float[Tensor, "questions 3 height width"], classes: Classes
) -> Float[Tensor, "questions height width"]:
    """Grad-CAM of the network from the plugin for saliency maps, at the image's size."""

    def head(maps: Tensor) -> Tensor:
        return network.classifier(maps.mean((2, 3)))

    return enlarge(grad_cam(network.features, head, images, classes), *images.shape[2:])
