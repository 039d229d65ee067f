"""Encodes masks as in COCO's files: lengths of alternating outside and inside runs, column by column.

Dimensions: masks (n, m), runs, height, width.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# A number is written in base 32, the least significant digit first, each digit as a character from "0" on.
# A sixth bit marks that more digits follow. The last digit carries the sign.
_ZERO, _MORE, _SIGN = 48, 32, 16


def encode(mask: Bool[Tensor, "height width"]) -> list[int]:
    """The lengths of the runs. The first run is outside and may have length 0."""
    pixels = mask.T.flatten()
    changes = (pixels[1:] != pixels[:-1]).nonzero().flatten() + 1
    edges = [0, *changes.tolist(), len(pixels)]
    lengths = [after - before for before, after in pairwise(edges)]
    return [0, *lengths] if pixels[0] else lengths


def decode(counts: Sequence[int], height: int, width: int) -> Bool[Tensor, "height width"]:
    """The mask of the given run lengths. Raises ValueError if they do not sum to height × width."""
    if sum(counts) != height * width:
        raise ValueError(f"the runs have {sum(counts)} pixels, but the image has {height} × {width}")
    lengths = torch.tensor(counts)
    inside = torch.arange(len(counts)) % 2 == 1
    return inside.repeat_interleave(lengths).view(width, height).T


def compress(counts: Sequence[int]) -> str:
    """Run lengths as text. From the fourth on, the difference from the length two places before is stored."""
    text = []
    for i, length in enumerate(counts):
        value = length - counts[i - 2] if i > 2 else length
        more = True
        while more:
            digit = value & 31
            value >>= 5
            more = value != (-1 if digit & _SIGN else 0)
            text.append(chr(_ZERO + digit + (_MORE if more else 0)))
    return "".join(text)


def uncompress(text: str) -> list[int]:
    """Run lengths from text. Raises ValueError if the text ends within a number."""
    counts: list[int] = []
    value = place = 0
    for character in text:
        digit = ord(character) - _ZERO
        value |= (digit & 31) << place
        place += 5
        if not digit & _MORE:
            if digit & _SIGN:
                value -= 1 << place
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = place = 0
    if place:
        raise ValueError("the text of the run lengths ends within a number")
    return counts


def overlap(a: Int64[Tensor, "n runs"], b: Int64[Tensor, "m _"]) -> Float[Tensor, "n m"]:
    """Intersection over union of all pairs of masks, without decoding them. It is 0 if both are empty.

    Shorter lists of runs must be padded with zeros. Raises ValueError for masks of different image sizes.
    """
    # Let f(x) be the number of inside pixels of a mask of b among the first x of its image. The overlap with
    # a run from x to y is f(y) - f(x). f is known at b's edges and linear between them.
    rows, size = len(a), int(a[0].sum())
    if any((runs.sum(1) != size).any() for runs in (a, b)):
        raise ValueError("the masks are of images of different sizes")
    at = a.cumsum(1)[:, : a.shape[1] // 2 * 2]  # pairs of start and end of inside runs
    ends = b.cumsum(1)
    inside = torch.arange(b.shape[1], device=b.device) % 2 == 1
    before = F.pad((b * inside).cumsum(1), (1, 0))  # f at the start of each run
    begins = F.pad(ends, (1, 0))
    where = at.reshape(1, -1).expand(len(b), -1).contiguous()
    run = torch.searchsorted(ends, where, right=True).clamp(max=b.shape[1] - 1)
    beyond = (where - begins.gather(1, run)) * (run % 2 == 1)
    f = (before.gather(1, run) + beyond).view(len(b), rows, -1)
    shared = (f[..., 1::2] - f[..., ::2]).sum(2).T
    areas = [runs[:, 1::2].sum(1) for runs in (a, b)]
    union = areas[0][:, None] + areas[1] - shared
    return shared.double() / union.clamp(min=1)
