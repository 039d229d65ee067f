"""Exercises: the HiPPO matrix, two discretisations, and two views of the system."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try


def of_orders(draw: Draw) -> Iterator[Try]:
    for order in (1, 2, 4):
        yield Try(f"order {order}", order)


def of_systems(draw: Draw) -> Iterator[Try]:
    yield Try("order 1", draw(1, 1), draw(1), torch.tensor(0.3, dtype=torch.float64))
    yield Try("order 2", draw(2, 2), draw(2), torch.tensor(0.1, dtype=torch.float64))
    yield Try("2 systems", draw(2, 3, 3), draw(2, 3), draw.between(0.1, 0.5, 2))


def of_kernels(draw: Draw) -> Iterator[Try]:
    yield Try("one sample", draw(2, 2), draw(2), draw(2), 1)
    yield Try("4 samples", draw(2, 2), draw(2), draw(2), 4)
    yield Try("2 systems, 5 samples", draw(2, 3, 3) / 2, draw(2, 3), draw(2, 3), 5)


def of_inputs(draw: Draw) -> Iterator[Try]:
    yield Try("order 1", draw(1, 1), draw(1), draw(1), draw(3))
    yield Try("order 2", draw(2, 2) / 2, draw(2), draw(2), draw(4))
    yield Try("2 systems, batched", draw(2, 2, 2) / 2, draw(2, 2), draw(2, 2), draw(3, 2, 4))


def of_signals(draw: Draw) -> Iterator[Try]:
    yield Try("3 samples", draw(3), draw(3))
    yield Try("batched", draw(2, 4), draw(4))


EXERCISES = (
    Exercise(
        name="HiPPO",
        of="model.hippo_legs",
        task="Theorem 2: return A and B of the scaled Legendre measure, in float64.",
        hints=(
            "B_n is √(2n + 1), with n from 0.",
            "A_nk is √(2n + 1) √(2k + 1) for n > k, n + 1 for n = k, and 0 otherwise.",
        ),
        tries=of_orders,
    ),
    Exercise(
        name="bilinear",
        of="model.bilinear",
        task="Discretise by the trapezoid rule.",
        hints=(
            (
                "x_k - x_{k-1} is step times the mean of the derivatives at both ends, with the input u "
                "constant in between."
            ),
            "ā = (1 - step/2 · a)⁻¹ (1 + step/2 · a), and b̄ = (1 - step/2 · a)⁻¹ step · b.",
        ),
        tries=of_systems,
    ),
    Exercise(
        name="zero-order hold",
        of="model.zero_order_hold",
        task="Discretise exactly for an input that is constant over a step. `a` may be singular.",
        hints=(
            "If a is invertible, the results are e^{step a} and a⁻¹ (e^{step a} - 1) b.",
            "Otherwise, append the input to the state, as a component with derivative 0.",
            "The first rows of matrix_exp of step · [[a, b], [0, 0]] contain both results.",
        ),
        tries=of_systems,
    ),
    Exercise(
        name="recurrence",
        of="model.recurrence",
        task="Compute the output of the discrete system step by step, from a state of zeros.",
        hints=(
            "Update the state with u_k before reading the output of step k.",
            "y_k = Σ c · state. Stack the outputs along the time axis.",
        ),
        tries=of_inputs,
    ),
    Exercise(
        name="kernel",
        of="model.kernel",
        task="Compute the impulse response of the system, with few matrix multiplications.",
        hints=(
            "Its k-th sample is c · ā^k b̄. A simple solution is a loop that multiplies a vector by ā.",
            (
                "It is faster to double the number of vectors with one matrix multiplication, and then to "
                "square the power of ā."
            ),
        ),
        tries=of_kernels,
    ),
)
