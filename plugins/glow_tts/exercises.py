"""Exercises: write the alignment search, its scores, and two layers of the flow."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .flow import ActNorm, Coupling


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("2 symbols, 3 frames", draw(1, 2, 3), torch.tensor([2]), torch.tensor([3]))
    yield Try("equal numbers of frames and symbols", draw(1, 3, 3), torch.tensor([3]), torch.tensor([3]))
    yield Try("rows of several lengths", draw(3, 3, 6), torch.tensor([3, 2, 1]), torch.tensor([6, 4, 5]))
    yield Try("equal paths", torch.zeros(1, 3, 5).double(), torch.tensor([3]), torch.tensor([5]))


def of_latents(draw: Draw) -> Iterator[Try]:
    yield Try("one band", draw(1, 1, 2), draw(1, 2, 1), draw(1, 2, 1))
    yield Try("3 bands", draw(2, 3, 4), draw(2, 2, 3), draw(2, 2, 3))


def of_norms(draw: Draw) -> Iterator[Try]:
    yield Try("all frames", ActNorm(2), draw(1, 2, 3), mask(3, 3))
    yield Try("one frame is padding", ActNorm(3), draw(2, 3, 4), mask(4, 3).expand(2, -1, -1))


def of_couplings(draw: Draw) -> Iterator[Try]:
    yield Try("2 channels", Coupling(2, 2, 1, 3, 0.0), draw(1, 2, 2), mask(2, 2))
    yield Try("one frame is padding", Coupling(4, 2, 1, 3, 0.0), draw(2, 4, 3), mask(3, 2).expand(2, -1, -1))


def mask(frames: int, count: int) -> torch.Tensor:
    return (torch.arange(frames) < count).double()[None, None]


EXERCISES = (
    Exercise(
        name="alignment",
        of="search.search",
        task="Algorithm 1: find the monotonic path with the largest sum, by dynamic programming.",
        hints=(
            "best[i] at frame j is the score plus the larger of best[i] and best[i - 1] at frame j - 1.",
            "Only the first symbol is possible in the first frame, so all others start at -inf.",
            "Backtrack from the last symbol and frame. Step to i - 1 only if it was strictly better.",
        ),
        tries=of_scores,
        gradients=False,
    ),
    Exercise(
        name="log normal",
        of="model.log_normal",
        task="Compute the log-density of all frames under all symbols, by matrix multiplications only.",
        hints=(
            "Expand (z - μ)² / σ² into three terms. Two of them are matrix multiplications.",
            "The other terms, with log σ and log 2π, depend only on the symbol. Sum them over the bands.",
        ),
        tries=of_latents,
    ),
    Exercise(
        name="activation norm",
        of="flow.ActNorm.forward",
        task="Scale and shift each channel, and return the log-determinant of each row.",
        hints=(
            "Compute bias + exp(logs) · x, and set it to 0 where the mask is 0.",
            "Each frame inside the mask contributes the sum of logs.",
        ),
        tries=of_norms,
    ),
    Exercise(
        name="coupling",
        of="flow.Coupling.forward",
        task="Apply the affine coupling layer, and return the log-determinant of each row.",
        hints=(
            "The first half is unchanged. self.affine computes shift and log-scale from it.",
            "The second half becomes shift + exp(logs) · second. Only logs inside the mask count.",
        ),
        tries=of_couplings,
    ),
    Exercise(
        name="inverse coupling",
        of="flow.Coupling.inverse",
        task="Invert the coupling layer.",
        hints=("The first half is unchanged, so shift and log-scale can be recomputed.",),
        tries=of_couplings,
    ),
)
