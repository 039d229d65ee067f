"""Exercises: the alignment search, its scores, and two steps of the flow."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .flow import ActNorm, Coupling


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("2 symbols, 3 frames", draw(1, 2, 3), torch.tensor([2]), torch.tensor([3]))
    yield Try("as many frames as symbols", draw(1, 3, 3), torch.tensor([3]), torch.tensor([3]))
    yield Try("rows of several lengths", draw(3, 3, 6), torch.tensor([3, 2, 1]), torch.tensor([6, 4, 5]))
    yield Try("equal paths", torch.zeros(1, 3, 5).double(), torch.tensor([3]), torch.tensor([5]))


def of_latents(draw: Draw) -> Iterator[Try]:
    yield Try("one band", draw(1, 1, 2), draw(1, 2, 1), draw(1, 2, 1))
    yield Try("3 bands", draw(2, 3, 4), draw(2, 2, 3), draw(2, 2, 3))


def of_norms(draw: Draw) -> Iterator[Try]:
    yield Try("all frames", ActNorm(2), draw(1, 2, 3), mask(3, 3))
    yield Try("one frame is filling", ActNorm(3), draw(2, 3, 4), mask(4, 3).expand(2, -1, -1))


def of_couplings(draw: Draw) -> Iterator[Try]:
    yield Try("2 channels", Coupling(2, 2, 1, 3, 0.0), draw(1, 2, 2), mask(2, 2))
    yield Try("one frame is filling", Coupling(4, 2, 1, 3, 0.0), draw(2, 4, 3), mask(3, 2).expand(2, -1, -1))


def mask(frames: int, count: int) -> torch.Tensor:
    return (torch.arange(frames) < count).double()[None, None]


EXERCISES = (
    Exercise(
        name="alignment",
        of="search.search",
        task="Algorithm 1: the monotonic path with the largest sum, by dynamic programming.",
        hints=(
            "best[i] at frame j is the score plus the larger of best[i] and best[i - 1] at frame j - 1.",
            "Only the first symbol is possible in the first frame: all others start at -inf.",
            "Go back from the last symbol and frame; step to i - 1 only where it was strictly better.",
        ),
        tries=of_scores,
        gradients=False,
    ),
    Exercise(
        name="log normal",
        of="model.log_normal",
        task="The log-density of all frames under all symbols, by matrix products alone.",
        hints=(
            "Expand (z - μ)² / σ² into three terms; two of them are products of matrices.",
            "The rest, with log σ and log 2π, belongs to a symbol and is summed over the bands.",
        ),
        tries=of_latents,
    ),
    Exercise(
        name="activation norm",
        of="flow.ActNorm.forward",
        task="Scale and shift each channel; also the log-determinant of each row.",
        hints=(
            "bias + exp(logs) · x, cleared where the mask is 0.",
            "Each frame of a row that is not masked contributes the sum of logs.",
        ),
        tries=of_norms,
    ),
    Exercise(
        name="coupling",
        of="flow.Coupling.forward",
        task="The affine coupling layer, and the log-determinant of each row.",
        hints=(
            "The first half passes by; self.affine makes shift and log-scale of it.",
            "The second half becomes shift + exp(logs) · second. Only masked-in logs count.",
        ),
        tries=of_couplings,
    ),
    Exercise(
        name="inverse coupling",
        of="flow.Coupling.inverse",
        task="The way back through the coupling layer.",
        hints=("The first half is unchanged, so shift and log-scale can be computed again.",),
        tries=of_couplings,
    ),
)
