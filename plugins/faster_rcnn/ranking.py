"""Ranks grouped regions without a network, by logistic regression on their rank, shape and colours.

Dimensions: images, regions, features.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..rcnn.task import BRIGHTNESS, Detection


def colour_shares(data: Detection) -> Float[Tensor, "images regions 4"]:
    """Shares of a region's pixels: the background colour, then the region's three commonest colours.

    A pixel's colour is the set of its channels above 0.5, as in `grouped`. The background's set is empty.
    """
    bright = data.x.cpu().double() + BRIGHTNESS > 0.5
    code = (bright * torch.tensor([1, 2, 4])[:, None, None]).sum(1)
    # Sums over all pixels above and to the left, so that four of them give the sum over a box.
    sums = F.pad(F.one_hot(code, 8).double().cumsum(1).cumsum(2), (0, 0, 1, 0, 1, 0))
    left, top, right, bottom = data.proposals.cpu().round().long().unbind(-1)
    image = torch.arange(len(sums))[:, None]
    pixels = sums[image, bottom, right] - sums[image, top, right]
    pixels = pixels - sums[image, bottom, left] + sums[image, top, left]
    share = pixels / pixels.sum(-1, keepdim=True)
    return torch.cat((share[..., :1], share[..., 1:].topk(3).values), -1)


def described(data: Detection) -> Float[Tensor, "images regions 18"]:
    """Rank, width, height, log of the aspect ratio and colour shares, their squares, and two products."""
    sides = (data.proposals[..., 2:] - data.proposals[..., :2]).cpu().double()
    shares, (width, height) = colour_shares(data), sides.unbind(-1)
    rank = torch.arange(sides.shape[1], dtype=sides.dtype).expand_as(width)
    alone = torch.stack((rank, width, height, (height / width).log(), *shares.unbind(-1)), -1)
    products = torch.stack((width * height, shares[..., 1] * shares[..., 2]), -1)
    return torch.cat((alone, alone.square(), products), -1)


def object_probability(
    known: Detection, data: Detection, *, penalty: float = 1.0, iterations: int = 200
) -> Float[Tensor, "images regions"]:
    """The probability that each proposal in `data` overlaps an object by at least half.

    A logistic regression, fitted to the proposals in `known`. The penalty is on the squared weights of
    standardised features, half of whose sum is added to the summed cross-entropy.
    """
    x = described(known)
    mean, std = x.mean((0, 1)), x.std((0, 1)) + 1e-6
    x = (x - mean) / std
    target = (known.named(known.proposals)[1].cpu() >= 0.5).to(x)
    weight, bias = x.new_zeros(x.shape[-1], requires_grad=True), x.new_zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS((weight, bias), max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        misfit = F.binary_cross_entropy_with_logits(x @ weight + bias, target, reduction="sum")
        loss = misfit + penalty * weight.square().sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return ((described(data) - mean) / std @ weight + bias).detach().sigmoid()
