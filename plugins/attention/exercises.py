"""Exercises: write scaled dot-product attention in two steps, and multi-head attention."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import MultiHeadAttention


def of_scores(draw: Draw) -> Iterator[Try]:
    yield Try("one query, two keys", draw(1, 2), draw(2, 2))
    yield Try("3 queries, 4 keys", draw(3, 5), draw(4, 5))
    yield Try("batched", draw(2, 2, 3, 4), draw(2, 2, 3, 4))
    yield Try("scale 0.3", draw(3, 4), draw(2, 4), scale=0.3)


def of_masks(draw: Draw) -> Iterator[Try]:
    yield Try("causal, equal numbers of keys and queries", draw(3, 2), draw(3, 2), causal=True)
    yield Try("causal, more keys than queries", draw(2, 3), draw(4, 3), causal=True)
    mask = draw.mask(2, 3, 4)
    mask[..., 0] = True
    yield Try("a mask", draw(2, 3, 5), draw(2, 4, 5), mask=mask)
    nowhere = draw.mask(3, 4)
    nowhere[1] = False
    yield Try("a query whose keys are all masked", draw(3, 2), draw(4, 2), mask=nowhere)
    yield Try(
        "a mask, causal", draw(2, 4, 3), draw(2, 4, 3), mask=draw.mask(4, 4) | (draw(4, 4) > 9), causal=True
    )
    yield Try("causal, fewer keys than queries", draw(4, 2), draw(2, 2), causal=True)


def of_weights(draw: Draw) -> Iterator[Try]:
    yield from of_scores(draw)
    yield from of_masks(draw)


def of_heads(draw: Draw) -> Iterator[Try]:
    yield Try("2 heads of size 3", draw(2, 6), 2)
    yield Try("batched", draw(2, 3, 4), 2)
    yield Try("one number per head", draw(2, 3), 3)


def of_merging(draw: Draw) -> Iterator[Try]:
    yield Try("2 heads, 3 tokens", draw(2, 3, 2))
    yield Try("batched", draw(2, 3, 4, 2))


def of_module(draw: Draw) -> Iterator[Try]:
    yield Try("one head", MultiHeadAttention(2, 1), draw(1, 2, 2))
    yield Try("two heads", MultiHeadAttention(4, 2), draw(1, 3, 4))
    yield Try("causal", MultiHeadAttention(4, 2), draw(2, 3, 4), causal=True)
    mask = draw.mask(2, 3, 3)
    mask[..., 0] = True
    yield Try("a mask", MultiHeadAttention(4, 2), draw(2, 3, 4), mask=mask)
    yield Try("another sequence", MultiHeadAttention(4, 2, context=3), draw(2, 3, 4), draw(2, 5, 3))


EXERCISES = (
    Exercise(
        name="weights",
        of="model.attention_weights",
        task="Compute the softmax of equation 1, with the scale and both masks.",
        hints=(
            "The scores are q @ k.mT, divided by the root of q's last dimension.",
            (
                "Add -inf to the scores of masked keys before the softmax. The last query is aligned with "
                "the last key."
            ),
            "A row whose scores are all -inf becomes NaN. Find such rows, and replace them with zeros.",
        ),
        tries=of_weights,
    ),
    Exercise(
        name="split heads",
        of="model.split_heads",
        task="Split the last dimension into heads, which become a dimension before the tokens.",
        hints=("Unflatten the last dimension into (heads, dim).", "Then swap the heads with the tokens."),
        tries=of_heads,
    ),
    Exercise(
        name="merge heads",
        of="model.merge_heads",
        task="Invert split_heads by concatenating the vectors of all heads.",
        hints=("Swap heads and tokens first, then flatten the last two dimensions.",),
        tries=of_merging,
    ),
    Exercise(
        name="multi-head",
        of="model.MultiHeadAttention.forward",
        task="Write section 3.2.2: project, split into heads, attend, merge, and project.",
        hints=(
            "Queries come from x. Keys and values come from context, or from x if context is None.",
            "The mask has no dimension for heads, so add one with unsqueeze(-3).",
        ),
        tries=of_module,
    ),
)
