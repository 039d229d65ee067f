"""Exercises: the shift of appendix B, and relative attention."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import RelativeAttention


def of_shifts(draw: Draw) -> Iterator[Try]:
    yield Try("equal numbers of keys and tokens", draw(3, 3))
    yield Try("with memory", draw(2, 4))
    yield Try("batched", draw(2, 2, 3, 5))


def of_attention(draw: Draw) -> Iterator[Try]:
    yield Try(
        "no memory", RelativeAttention(2, 1), *(2 * [draw(1, 3, 2)]), draw(3, 2), draw(1, 2), draw(1, 2)
    )
    yield Try(
        "2 tokens of memory", RelativeAttention(4, 2), *context(draw, 2, 3, 2, 4), draw(2, 2), draw(2, 2)
    )


def context(draw: Draw, batch: int, tokens: int, memory: int, model: int) -> tuple[object, ...]:
    keys = draw(batch, memory + tokens, model)
    return keys[:, memory:].clone(), keys, draw(memory + tokens, model)


EXERCISES = (
    Exercise(
        name="shift",
        of="model.shifted",
        task="Move each row's distance scores to the columns of their keys, by padding and reshaping.",
        hints=(
            "Pad one column on the left, then flatten the matrix.",
            "Drop the first `tokens` entries, and reshape the rest into rows of length `keys`.",
        ),
        tries=of_shifts,
    ),
    Exercise(
        name="relative attention",
        of="model.RelativeAttention.forward",
        task="Section 3.3: compute scores by content and distance, their softmax, and the weighted values.",
        hints=(
            (
                "The content score is (q + u) kᵀ. The distance score is (q + v) rᵀ, shifted. r is the "
                "projection of distances."
            ),
            "Divide their sum by the square root of the head size, and mask later keys.",
            "The last query sees the last key, so the mask starts at diagonal keys - tokens + 1.",
        ),
        tries=of_attention,
    ),
)
