"""Exercises: discretisation, the kernel from powers and from Cauchy sums, and a step in O(order)."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Recurrence


def of_systems(draw: Draw) -> Iterator[Try]:
    yield Try("one channel, order 2", *system(draw, 1, 1)[:3], draw.between(0.1, 0.5, 1))
    yield Try("2 channels, order 4", *system(draw, 2, 2)[:3], draw.between(0.1, 0.5, 2))


def of_kernels(draw: Draw) -> Iterator[Try]:
    yield Try("one channel, 2 samples", *system(draw, 1, 1), draw.between(0.1, 0.5, 1), 2)
    yield Try("5 samples", *system(draw, 2, 1), draw.between(0.1, 0.5, 2), 5)
    yield Try("order 4, 6 samples", *system(draw, 2, 2), draw.between(0.1, 0.5, 2), 6)


def of_recurrences(draw: Draw) -> Iterator[Try]:
    for label, channels, half, batch in (("order 2", 1, 1, 1), ("order 4", 3, 2, 2)):
        made = Recurrence.of(*system(draw, channels, half), draw.between(0.1, 0.5, channels), draw(channels))
        yield Try(label, made, draw(batch, channels), torch.complex(*draw(2, batch, channels, half)))


def system(draw: Draw, channels: int, half: int) -> tuple[torch.Tensor, ...]:
    """Λ (with negative real parts), P, B and C."""
    lamb = torch.complex(-draw.between(0.3, 1, channels, half), draw.between(0.5, 3, channels, half))
    return lamb, *(torch.complex(*draw(2, channels, half)) for _ in range(3))


EXERCISES = (
    Exercise(
        name="discretisation",
        of="model.discretised",
        task="Discretise Λ - P P* with the bilinear method, and return full matrices.",
        hints=(
            "whole() adds the conjugates. Then A is diag_embed(Λ) minus the outer product of P and P*.",
            "ā = (1 - step/2 · A)⁻¹ (1 + step/2 · A).",
            "b̄ = (1 - step/2 · A)⁻¹ step · B. The matrix is the same, so one solve gives both.",
        ),
        tries=of_systems,
    ),
    Exercise(
        name="kernel by powers",
        of="model.kernel_by_powers",
        task="Compute equation 5: the system's impulse response, one power of ā at a time.",
        hints=(
            "Start from the vector b̄ and multiply it by ā once per sample.",
            "A sample is the real part of Σ c · vector, without conjugating c.",
        ),
        tries=of_kernels,
    ),
    Exercise(
        name="kernel by Cauchy sums",
        of="model.kernel_by_cauchy",
        task="Algorithm 1: compute the kernel from its generating function at the roots of unity.",
        hints=(
            "At a root z, with g = 2 (1 - z) / (step (1 + z)), the Cauchy sums k are Σ v / (g - λ).",
            "The sums have v = c b, c p, p* b, p* p. The kernel is 2/(1+z) (k00 - k01 k10 / (1 + k11)).",
            (
                "Multiply by 1 + z before you divide, because g is infinite at z = -1. irfft needs half of "
                "the roots."
            ),
        ),
        tries=of_kernels,
    ),
    Exercise(
        name="step",
        of="model.Recurrence.step",
        task="Compute one sample of the recurrence, without building a matrix.",
        hints=(
            (
                "First multiply the state by r + Λ - P P*. `paired` sums over the conjugates, too, so it "
                "computes P* times the state."
            ),
            "Then multiply by the inverse, D - q P* D, and add b̄ u.",
            (
                "c is already doubled for the conjugates. The output is the real part of Σ c · state, plus "
                "the skip connection."
            ),
        ),
        tries=of_recurrences,
    ),
)
