"""Exercises: write the normalisation, cosine attention, and the initial scale."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_vectors(draw: Draw) -> Iterator[Try]:
    yield Try("one vector", draw(1, 1, 1, 3))
    yield Try("a length of 2", draw(1, 1, 2, 3), 2.0)
    yield Try("a learned scale", draw(1, 2, 2, 4), draw(1))
    yield Try("zeros", 0 * draw(1, 1, 2, 3))


def of_attention(draw: Draw) -> Iterator[Try]:
    yield Try("2 tokens", draw(1, 1, 2, 2), draw(1, 1, 2, 2), draw(1, 1, 2, 2), 1 + draw(1).abs())
    yield Try("2 heads", *(draw(1, 2, 3, 4) for _ in range(3)), 2 + draw(1).abs())
    yield Try("causal", *(draw(2, 1, 4, 3) for _ in range(3)), 2 + draw(1).abs(), causal=True)


def of_scales(draw: Draw) -> Iterator[Try]:
    for tokens in (2, 16, 100):
        yield Try(f"{tokens} tokens", tokens)


EXERCISES = (
    Exercise(
        name="normalise",
        of="model.normalised",
        task="Rescale vectors to length `scale`. Zero vectors stay zero, and the dtype stays the same.",
        hints=("Divide by the norm over the last dimension, or by 1e-12 if the norm is smaller.",),
        tries=of_vectors,
    ),
    Exercise(
        name="attention",
        of="model.qk_norm_attention",
        task="Write equations 5 to 7: attention whose scores are cosines times g.",
        hints=(
            "Normalise queries and keys to length 1, and multiply the scores by g.",
            "Do not divide by the root of the head size: pass scale=1.",
        ),
        tries=of_attention,
    ),
    Exercise(
        name="first scale",
        of="model.first_scale",
        task="Compute the initial value of g: log2(L² - L).",
        hints=("L² - L is the number of pairs of two different tokens.",),
        tries=of_scales,
    ),
)
