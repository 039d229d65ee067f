"""Monotonic rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032) with identity tails."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Values = Float[Tensor, "*any"]
Bins = Float[Tensor, "*any bins"]
LEAST = 1e-3  # least width and height of a bin, as a fraction of the square, and least slope at a knot


def spline(
    x: Values,
    widths: Bins,
    heights: Bins,
    slopes: Float[Tensor, "*any inner"],
    bound: float = 5.0,
    inverse: bool = False,
) -> tuple[Values, Values]:
    """The value of the spline (or of its inverse), and the log derivative there.

    widths, heights  sizes of the bins over [-bound, bound], before the softmax
    slopes           slopes at the knots between bins, before the softplus; at both ends the slope is 1

    Outside the bounds, the spline is the identity. Half precision is computed in float32. Raises ValueError
    if the number of slopes is not one less than the number of bins.
    """
    if slopes.shape[-1] != widths.shape[-1] - 1:
        raise ValueError(f"{widths.shape[-1]} bins have {widths.shape[-1] - 1} knots between them")
    kind = x.dtype
    if kind in (torch.float16, torch.bfloat16):
        x, widths, heights, slopes = (one.float() for one in (x, widths, heights, slopes))
    inside = (x >= -bound) & (x <= bound)
    # Values out of bounds are replaced by zero, so their gradients are finite.
    given = torch.where(inside, x, torch.zeros_like(x)).unsqueeze(-1)
    corners = _knots(torch.stack((widths, heights)), bound)
    ends = torch.full_like(slopes[..., :1], math.log(math.expm1(1 - LEAST)))
    rise = LEAST + F.softplus(torch.cat((ends, slopes, ends), -1))
    index = (corners[int(inverse), ..., 1:-1] <= given).sum(-1, keepdim=True).expand(3, *x.shape, 1)
    knots = torch.cat((corners, rise.unsqueeze(0)))
    (left, low, first), (right, high, last) = (knots.gather(-1, index + one).squeeze(-1) for one in (0, 1))
    width, height, given = right - left, high - low, given.squeeze(-1)
    mean = height / width
    bend = first + last - 2 * mean
    if inverse:  # equations 6 to 8: the root of a quadratic
        above = given - low
        a, b, c = height * (mean - first) + above * bend, height * first - above * bend, -mean * above
        place = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
        result = left + place * width
    else:
        place = (given - left) / width
    between = place * (1 - place)
    denominator = mean + bend * between
    if not inverse:  # equation 4
        result = low + height * (mean * place.square() + first * between) / denominator
    # Equation 5.
    numerator = last * place.square() + 2 * mean * between + first * (1 - place).square()
    log = 2 * mean.log() + numerator.log() - 2 * denominator.log()
    log = torch.where(inside, log, torch.zeros_like(log))
    return torch.where(inside, result, x).to(kind), (-log if inverse else log).to(kind)


def _knots(sizes: Bins, bound: float) -> Float[Tensor, "*any knots"]:
    """Knots from -bound to bound, with bin sizes from a softmax and a minimum size."""
    parts = LEAST + (1 - LEAST * sizes.shape[-1]) * sizes.softmax(-1)
    inner = 2 * bound * parts.cumsum(-1)[..., :-1] - bound
    edge = torch.full_like(inner[..., :1], bound)
    return torch.cat((-edge, inner, edge), -1)
