"""Exercises: the attention with its cache, the block, and what a next token is drawn from."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Block, CausalAttention


def of_attention(draw: Draw) -> Iterator[Try]:
    yield Try("3 tokens", CausalAttention(2, 1), draw(1, 3, 2))
    yield Try("2 heads", CausalAttention(4, 2), draw(2, 3, 4))
    yield Try("a cache with 2 tokens, one more", CausalAttention(4, 2), draw(1, 1, 4), draw(2, 1, 2, 4, 2), 2)
    yield Try("an empty cache, 3 tokens", CausalAttention(4, 2), draw(1, 3, 4), draw(2, 1, 2, 4, 2), 0)


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("3 tokens", Block(2, 1), draw(1, 3, 2))
    yield Try("2 heads", Block(4, 2), draw(2, 3, 4))


def of_logits(draw: Draw) -> Iterator[Try]:
    yield Try("plain", draw(4))
    yield Try("a temperature of 0.5", draw(2, 4), temperature=0.5)
    yield Try("the 2 likeliest", draw(2, 5), top_k=2)
    yield Try("the 2 likeliest at a temperature of 2", draw(2, 5), top_k=2, temperature=2.0)
    yield Try("more than there are", draw(3), top_k=9)
    yield Try("a temperature of 0", draw(2, 4), temperature=0)


EXERCISES = (
    Exercise(
        name="attention",
        of="model.CausalAttention.forward",
        task="Queries, keys and values from one projection; with a cache, the keys of earlier tokens too.",
        hints=(
            "The projection's width is cut into (3, heads, dim); bring 3 and the heads to the front.",
            "Keys and values go into the cache at first, first + 1, ...; then all up to there are read.",
            "A lone token sees everything: causal only where there are several.",
        ),
        tries=of_attention,
    ),
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Section 2.3: normalise, attend, add; normalise, feed forward, add.",
        hints=("The norm is in front of each part, and what is added to is not normalised.",),
        tries=of_blocks,
    ),
    Exercise(
        name="sampling",
        of="model.sampling_probabilities",
        task="softmax(logits / temperature) over the top_k likeliest; at temperature 0 the likeliest alone.",
        hints=(
            "All but the top_k logits become -inf before the softmax.",
            "A temperature of 0 is a one-hot vector at the largest logit, in the dtype of the logits.",
        ),
        tries=of_logits,
        gradients=False,
    ),
)
