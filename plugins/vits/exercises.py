"""Exercises: the path of given durations, the coupling of the prior's flow, and the spline."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import MeanCoupling


def of_durations(draw: Draw) -> Iterator[Try]:
    yield Try("2 symbols", torch.tensor([[1, 2]]), 3)
    yield Try("rows of different lengths", torch.tensor([[2, 1, 1], [1, 0, 2]]), 5)


def of_couplings(draw: Draw) -> Iterator[Try]:
    yield Try("2 channels", MeanCoupling(2, 2, 1, 3), draw(1, 2, 2), mask(2, 2))
    yield Try("one frame is padding", MeanCoupling(4, 2, 1, 3), draw(2, 4, 3), mask(3, 2).expand(2, -1, -1))


def of_splines(draw: Draw) -> Iterator[Try]:
    for label, named in (("forward", {}), ("inverse", {"inverse": True}), ("a bound of 1", {"bound": 1.0})):
        yield Try(f"{label}, 2 bins", draw(3), draw(3, 2), draw(3, 2), draw(3, 1), **named)
        yield Try(f"{label}, 4 bins", 4 * draw(2, 4), draw(2, 4, 4), draw(2, 4, 4), draw(2, 4, 3), **named)


def mask(frames: int, count: int) -> torch.Tensor:
    return (torch.arange(frames) < count).double()[None, None]


EXERCISES = (
    Exercise(
        name="path",
        of="model.path_of",
        task="Compute the alignment as a mask, from the number of frames of each symbol.",
        hints=(
            "A cumulative sum gives the end of each symbol. Subtract the duration to get the start.",
            "A frame belongs to a symbol if it is at or after the start and before the end.",
        ),
        tries=of_durations,
    ),
    Exercise(
        name="coupling",
        of="model.MeanCoupling.forward",
        task="Implement the volume-preserving coupling layer.",
        hints=("Keep the first half. Add self.shift of it to the second half, and mask the result.",),
        tries=of_couplings,
    ),
    Exercise(
        name="inverse coupling",
        of="model.MeanCoupling.inverse",
        task="Implement the inverse of the coupling layer.",
        hints=("The first half is unchanged, so the same shift can be computed from it.",),
        tries=of_couplings,
    ),
    Exercise(
        name="spline",
        of="spline.spline",
        task="Implement the rational-quadratic spline of Durkan et al., its inverse, and the log derivative.",
        hints=(
            (
                "_knots computes corners from widths and heights. Slopes are LEAST + softplus, and 1 at both "
                "ends."
            ),
            "At ξ, with mean slope s, slopes a, b: low + height (s ξ² + a ξ(1-ξ)) / (s + (a+b-2s) ξ(1-ξ)).",
            "The derivative is s² (b ξ² + 2 s ξ(1-ξ) + a (1-ξ)²) / denominator². The inverse solves for ξ.",
        ),
        tries=of_splines,
    ),
)
