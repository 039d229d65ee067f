"""Exercises: write grouped attention, and its projections."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import GroupedQueryAttention


def of_attention(draw: Draw) -> Iterator[Try]:
    yield Try("2 heads share one", draw(1, 2, 2, 2), draw(1, 1, 3, 2), draw(1, 1, 3, 2))
    yield Try("4 heads in 2 groups", draw(1, 4, 2, 3), draw(1, 2, 3, 3), draw(1, 2, 3, 2))
    yield Try("causal", draw(1, 2, 3, 2), draw(1, 1, 3, 2), draw(1, 1, 3, 2), causal=True)
    yield Try(
        "causal, more keys than queries", draw(1, 2, 2, 2), draw(1, 1, 4, 2), draw(1, 1, 4, 2), causal=True
    )
    mask = draw.mask(3, 4)
    mask[:, 0] = True
    yield Try("a mask", draw(2, 2, 3, 2), draw(2, 2, 4, 2), draw(2, 2, 4, 2), mask=mask)
    yield Try("a bias", draw(1, 2, 3, 2), draw(1, 1, 3, 2), draw(1, 1, 3, 2), bias=draw(1, 2, 3, 3))


def of_projections(draw: Draw) -> Iterator[Try]:
    yield Try("2 heads, one group", GroupedQueryAttention(4, 2, 1), draw(1, 2, 4))
    yield Try("4 heads, 2 groups", GroupedQueryAttention(4, 4, 2), draw(2, 3, 4))
    yield Try("heads of size 3", GroupedQueryAttention(2, 2, 1, dim=3), draw(1, 2, 2))


EXERCISES = (
    Exercise(
        name="grouped attention",
        of="model.grouped_attention",
        task="Write section 2.2's attention, in which several query heads share one head of keys and values.",
        hints=(
            (
                "The first `heads // groups` query heads belong to the first group. Repeating the keys "
                "works, but is not necessary."
            ),
            "Divide the scores by √dim, and add a bias before the mask and the softmax.",
            "With `causal`, the last query sees the last key, so the diagonal is shifted by keys - queries.",
        ),
        tries=of_attention,
    ),
    Exercise(
        name="projections",
        of="model.GroupedQueryAttention.project",
        task="Project queries for all heads, and keys and values for one head per group.",
        hints=("split_heads(x, count) splits vectors into heads. Keys and values have self.groups heads.",),
        tries=of_projections,
    ),
)
