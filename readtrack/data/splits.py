"""Splits into training, validation and test data, windows of texts as ids, and images as tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Parts(NamedTuple):
    """Three disjoint parts: settings are chosen on `choose`, reported numbers come from `judge`."""

    train: tuple[Tensor, ...]
    choose: tuple[Tensor, ...]
    judge: tuple[Tensor, ...]


def parts(*tensors: Tensor, seed: int, choose: float = 0.2, judge: float = 0.2) -> Parts:
    """Shuffle and split rows: `(x, y), (x_choose, y_choose), (x_judge, y_judge) = parts(x, y, seed=s)`.

    Row i of every tensor goes to the same part; `choose` and `judge` are shares of the rows, the rest is for
    training. Another seed gives another split. Raises ValueError if the tensors differ in length or a part
    would be empty.
    """
    import torch

    count = len(tensors[0])
    if any(len(tensor) != count for tensor in tensors):
        raise ValueError(f"tensors of different length: {[len(tensor) for tensor in tensors]}")
    sizes = _sizes(count, choose, judge)
    order = torch.split(torch.randperm(count, generator=torch.Generator().manual_seed(seed)), sizes)
    return Parts(*(tuple(tensor[rows] for tensor in tensors) for rows in order))


def stretches(ids: Tensor, seed: int, choose: float = 0.1, judge: float = 0.1) -> Parts:
    """Split a sequence (length, ...) into contiguous stretches; the three parts are tuples of pieces, in
    order.

    `choose` and `judge` are one piece each, at places drawn from the seed; `train` is the rest, in up to
    three pieces. `windows` takes any of the tuples and crosses no border. The pieces are views. Raises
    ValueError if a part would be empty.
    """
    import torch

    length = len(ids)
    rest, *held_out = _sizes(length, choose, judge)
    generator = torch.Generator().manual_seed(seed)
    first, second = sorted(torch.randint(rest + 1, (2,), generator=generator).tolist())
    swapped = bool(torch.randint(2, (), generator=generator))
    if swapped:
        held_out.reverse()
    sizes = [first, held_out[0], second - first, held_out[1], rest - second]
    before, one, between, two, after = torch.split(ids, sizes)
    train = tuple(piece for piece in (before, between, after) if len(piece))
    return Parts(train, (two,), (one,)) if swapped else Parts(train, (one,), (two,))


def split(
    *tensors: Tensor, test: float = 0.2, seed: int = 0
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Shuffle and split rows: `(x, y), (x_test, y_test) = split(x, y)`.

    Row i of every tensor goes to the same side; `test` is the share of the second side. The same seed always
    gives the same split, so the test data need not change with a run's seed. Raises ValueError if the tensors
    differ in length or a side would be empty.
    """
    import torch

    count = len(tensors[0])
    held_out = round(count * test)
    if any(len(tensor) != count for tensor in tensors):
        raise ValueError(f"tensors of different length: {[len(tensor) for tensor in tensors]}")
    if not 0 < held_out < count:
        raise ValueError(f"test={test} of {count} rows leaves one side empty")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    train, rest = order[held_out:], order[:held_out]
    return tuple(tensor[train] for tensor in tensors), tuple(tensor[rest] for tensor in tensors)


def characters(text: str) -> tuple[Tensor, str]:
    """A text as ids (length,) int64, and its alphabet: `alphabet[id]` is the character."""
    import torch

    alphabet = "".join(sorted(set(text)))
    index = {character: i for i, character in enumerate(alphabet)}
    return torch.tensor([index[character] for character in text]), alphabet


def windows(ids: Tensor | Sequence[Tensor], length: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` random windows of `length` consecutive ids: (count, length).

    `ids` is a sequence, or several pieces of one: every window lies within a piece, and all places are
    equally likely. Raises ValueError if no piece is that long.
    """
    import torch

    pieces = (ids,) if isinstance(ids, torch.Tensor) else tuple(ids)
    places = torch.tensor([max(len(piece) - length + 1, 0) for piece in pieces])
    ends = places.cumsum(0)
    if not ends[-1]:
        raise ValueError(
            f"no window of length {length} fits in pieces of lengths {[len(piece) for piece in pieces]}"
        )
    drawn = torch.randint(int(ends[-1]), (count,), generator=generator)
    owner = torch.searchsorted(ends, drawn, right=True)
    starts = drawn - (ends - places)[owner]
    found = pieces[0].new_empty(count, length)
    for i, piece in enumerate(pieces):
        rows = owner == i
        found[rows] = piece[starts[rows, None] + torch.arange(length)]
    return found


def tiles(images: Tensor) -> Tensor:
    """Images of ink, (n, side * side) or (n, 1, side, side) in [0, 1], prepared for a grid.

    Ink is black, small images are enlarged by an integer factor to 28 pixels or more, and a frame of 2 pixels
    separates them.
    """
    import torch.nn.functional as F

    side = math.isqrt(images[0].numel())
    zoom = -(-28 // side)
    large = (1 - images.detach().float()).view(-1, 1, side, side)
    large = large.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    return F.pad(large.clamp(0, 1), (2, 2, 2, 2), value=0.8)


def _sizes(count: int, choose: float, judge: float) -> list[int]:
    """The sizes of train, choose and judge."""
    held_out = [round(count * choose), round(count * judge)]
    sizes = [count - sum(held_out), *held_out]
    if min(sizes) <= 0:
        raise ValueError(f"choose={choose} and judge={judge} of {count} rows leave a part empty")
    return sizes
