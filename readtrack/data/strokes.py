"""Synthetic handwriting: joined letters as pen offsets, with the letter of each point.

There are six letters, drawn as smooth curves. Every word has its own slant, width, height and speed. Every
letter has small shape variations. Every offset has noise of known size, which bounds the likelihood of any
model.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

LETTERS = "eilnot"

# "x,y" points of a letter's strokes: x to the right, y upwards, 1 is the height of an "e". The first
# stroke begins on the line, where the previous letter ended, and ends where the next letter begins.
_SHAPES = {
    "e": ["0,0 .45,.4 .62,.75 .42,1 .2,.7 .25,.2 .5,0 .9,0"],
    "i": ["0,0 .3,.6 .35,1 .35,.4 .45,.03 .8,0", ".38,1.4 .4,1.55"],
    "l": ["0,0 .4,.8 .52,1.6 .36,2 .22,1.6 .2,.6 .35,.05 .8,0"],
    "n": ["0,0 .15,.8 .22,1 .22,.5 .22,0 .32,.6 .52,1 .68,.8 .7,.25 .82,0 1.1,0"],
    "o": ["0,0 .3,.75 .5,1 .2,.85 .1,.45 .35,0 .65,.35 .6,.85 .45,1 .7,.8 .85,.2 1.1,0"],
    "t": ["0,0 .35,.9 .43,1.7 .4,.6 .5,.03 .85,0", ".12,1.15 .75,1.2"],
}
_WOBBLE = 0.03  # standard deviation of the variation of these points
_DENSE = 16  # points per curve segment, before resampling to equal steps


@dataclass(frozen=True)
class Strokes:
    """N words of at most T points, padded with zeros."""

    points: Float[Tensor, "N T 3"]  # offset x, offset y, and 1 where a stroke ends; the first is from (0, 0)
    lengths: Int64[Tensor, " N"]
    words: Int64[Tensor, "N letters"]  # indices into `LETTERS`
    letter: Int64[Tensor, "N T"]  # for each point, the index of its letter in the word; -1 is padding


def write(
    words: Int64[Tensor, "N letters"], generator: Generator, *, spacing: float = 0.25, tremor: float = 0.02
) -> Strokes:
    """Write words (indices into `LETTERS`), each in its own hand. The unit of length is the height of an "e".

    Points are about `spacing` apart, varying by a sixth between hands. `tremor` is the standard deviation of
    the normal noise on each offset, so no model can have fewer than ln(2 pi e tremor^2) nats per point.
    """
    count, length = words.shape
    hands = 2 * torch.rand(count, 4, generator=generator) - 1
    most = max(len(shape) for letter in LETTERS for shape in _shapes(letter))
    wobble = _WOBBLE * torch.randn(count, length, 2, most, 2, generator=generator)
    written = [_word(*word, spacing) for word in zip(words.tolist(), hands, wobble, strict=True)]

    lengths = torch.tensor([len(points) for points, _ in written])
    points = torch.zeros(count, int(lengths.max()), 3)
    letter = torch.full(points.shape[:2], -1)
    for i, (mine, places) in enumerate(written):
        points[i, : len(mine)], letter[i, : len(mine)] = mine, places
    noise = tremor * torch.randn(points[..., :2].shape, generator=generator)
    points[..., :2] += noise * (letter >= 0)[..., None]
    return Strokes(points, lengths, words, letter)


def _word(
    word: list[int], hand: Float[Tensor, " style"], wobble: Float[Tensor, "letters 2 most 2"], spacing: float
) -> tuple[Float[Tensor, "points 3"], Int64[Tensor, " points"]]:
    """A word without tremor: its points, and for each point, the index of its letter in the word."""
    slant, width, height, speed = (hand * torch.tensor([0.3, 0.15, 0.15, 1 / 6])).tolist()
    turned = torch.tensor([[1 + width, 0], [slant, 1 + height]])
    strokes, joined, start = [], [], 0.0
    for place, index in enumerate(word):
        curves = []
        for shape, off in zip(_shapes(LETTERS[index]), wobble[place], strict=False):
            points = shape + torch.tensor([start, 0])
            points[1:-1] += off[1 : len(shape) - 1]
            curves.append(_curve(len(shape)) @ points @ turned)
        body, *lifted = curves
        joined.append((body, place))
        # A dot or a bar is a separate stroke, and the next letter starts another.
        if lifted:
            strokes += [joined, *([(curve, place)] for curve in lifted)]
            joined = []
        start += _shapes(LETTERS[index])[0][-1, 0].item()
    strokes += [joined] if joined else []

    positions, places, ends = [], [], []
    for stroke in strokes:
        path = torch.cat([curve for curve, _ in stroke])
        owner = torch.cat([torch.full((len(curve),), place) for curve, place in stroke])
        kept, nearest = _equal_steps(path, spacing * (1 + speed))
        positions.append(kept)
        places.append(owner[nearest])
        ends.append(torch.arange(len(kept)) == len(kept) - 1)
    offsets = torch.cat(positions).diff(dim=0, prepend=torch.zeros(1, 2))
    return torch.cat((offsets, torch.cat(ends)[:, None]), 1), torch.cat(places)


@functools.cache
def _shapes(letter: str) -> list[Float[Tensor, "points 2"]]:
    """The points of a letter's strokes."""
    strokes = [[point.split(",") for point in stroke.split()] for stroke in _SHAPES[letter]]
    return [torch.tensor([[float(x), float(y)] for x, y in stroke]) for stroke in strokes]


@functools.cache
def _curve(count: int) -> Float[Tensor, "dense count"]:
    """The weights of `count` points in a smooth curve through them (uniform Catmull-Rom spline)."""
    t = torch.arange(_DENSE) / _DENSE
    basis = torch.tensor([[0.0, -1, 2, -1], [2, 0, -5, 3], [0, 1, 4, -3], [0, 0, -1, 1]]) / 2
    weights = torch.stack((torch.ones(_DENSE), t, t**2, t**3), 1) @ basis.T
    curve = torch.zeros(_DENSE * (count - 1) + 1, count)
    for i in range(count - 1):
        for j in range(4):
            neighbour = min(max(i + j - 1, 0), count - 1)  # beyond either end, the end point is repeated
            curve[i * _DENSE : (i + 1) * _DENSE, neighbour] += weights[:, j]
    curve[-1, -1] = 1
    return curve


def _equal_steps(
    path: Float[Tensor, "dense 2"], step: float
) -> tuple[Float[Tensor, "points 2"], Int64[Tensor, " points"]]:
    """Points about `step` apart along a path, including both ends, and the index of the path's next point."""
    along = torch.cat((torch.zeros(1), path.diff(dim=0).norm(dim=1).cumsum(0)))
    count = max(round(along[-1].item() / step), 1) + 1
    at = torch.linspace(0, 1, count) * along[-1]
    after = torch.searchsorted(along, at).clamp(1, len(path) - 1)
    weight = ((at - along[after - 1]) / (along[after] - along[after - 1]).clamp(min=1e-9)).clamp(0, 1)
    return path[after - 1].lerp(path[after], weight[:, None]), after
