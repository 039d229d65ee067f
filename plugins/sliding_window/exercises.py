"""Exercises: sliding-window attention, the rolling cache, and SwiGLU."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import SwiGLU


def of_windows(draw: Draw) -> Iterator[Try]:
    yield Try("fewer tokens than the window", *heads(draw, 2), 3)
    yield Try("two full blocks", *heads(draw, 4), 2)
    yield Try("the last block is short", *heads(draw, 5), 2)
    yield Try("a window of 1", *heads(draw, 3), 1)
    yield Try("2 heads in a group", draw(2, 2, 5, 2), draw(2, 1, 5, 2), draw(2, 1, 5, 2), 2)


def heads(draw: Draw, tokens: int) -> tuple[object, ...]:
    return tuple(draw(1, 1, tokens, 2) for _ in range(3))


def of_slots(draw: Draw) -> Iterator[Try]:
    for length in (0, 2, 4, 5, 9):
        yield Try(f"4 slots after {length} tokens", 4, length, torch.device("cpu"))


def of_gates(draw: Draw) -> Iterator[Try]:
    yield Try("2 vectors", SwiGLU(2, 3), draw(2, 2))
    yield Try("batched", SwiGLU(3, 4), draw(2, 2, 3))


EXERCISES = (
    Exercise(
        name="window attention",
        of="model.window_attention",
        task="Let each token attend to itself and window - 1 previous tokens, in blocks of one window.",
        hints=(
            "A block of queries needs the keys of its own block and of the previous one: pad and unfold.",
            "In a block, key j of 2 · window is at j - window. A query at i sees keys in (i - window, i].",
            "The first block has no previous block. Cut off the padding of the last block at the end.",
        ),
        tries=of_windows,
    ),
    Exercise(
        name="slots",
        of="model.positions_in",
        task="Compute the token in each slot of the rolling cache, or a negative number for an empty slot.",
        hints=(
            (
                "The newest token, length - 1, is in slot (length - 1) mod window. The other slots hold "
                "older tokens."
            ),
        ),
        tries=of_slots,
    ),
    Exercise(
        name="SwiGLU",
        of="model.SwiGLU.forward",
        task="Compute W2 (silu(W1 x) · W3 x).",
        hints=("w1 is the gate: apply silu to its output.",),
        tries=of_gates,
    ),
)
