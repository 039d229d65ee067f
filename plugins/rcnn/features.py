"""Features of a region: layers of the network, and histograms of gradients with or without colours."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .model import RegionNet, hog, warp
from .task import Detection

Features = Float[Tensor, "rows features"]


def crops(data: Detection, side: int = 16) -> Float[Tensor, "rows 3 side side"]:
    """Warp all regions to squares."""
    image = torch.arange(len(data.x), device=data.x.device).repeat_interleave(data.proposals.shape[1])
    return warp(data.x, data.proposals.flatten(0, 1).to(data.x), image, side=side)


def hidden(network: RegionNet, data: Detection) -> Features:
    """Activations of the hidden layer, which are the inputs of the SVMs."""
    return torch.cat([network.head(network.pooled(x))[0] for x in crops(data).split(500)])


def last_maps(network: RegionNet, data: Detection) -> Features:
    return torch.cat([network.pooled(x).flatten(1) for x in crops(data).split(500)])


def gradients(data: Detection) -> Features:
    return torch.cat([hog(x) for x in crops(data).split(500)])


def gradients_and_colours(data: Detection) -> Features:
    """HOG of the warped regions, enlarged to twice the side, and mean colours in a grid of 4 × 4 cells."""
    found = []
    for x in crops(data).split(500):
        enlarged = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        found.append(torch.cat((hog(enlarged), F.adaptive_avg_pool2d(x, 4).flatten(1)), 1))
    return torch.cat(found)
