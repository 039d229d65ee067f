"""Exercises: write attention with a cache, the block, and the sampling distribution."""

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
    yield Try("the top 2", draw(2, 5), top_k=2)
    yield Try("the top 2 at a temperature of 2", draw(2, 5), top_k=2, temperature=2.0)
    yield Try("top_k above the vocabulary", draw(3), top_k=9)
    yield Try("a temperature of 0", draw(2, 4), temperature=0)


EXERCISES = (
    Exercise(
        name="attention",
        of="model.CausalAttention.forward",
        task="Compute queries, keys and values with one projection. With a cache, also attend to the cached "
        "tokens.",
        hints=(
            "Unflatten the projection into (3, heads, dim), and move 3 and the heads to the front.",
            "Write keys and values into the cache at first, first + 1, ... and read all entries up to there.",
            "A single new token attends to all others, so use the causal mask only for several tokens.",
        ),
        tries=of_attention,
    ),
    Exercise(
        name="block",
        of="model.Block.forward",
        task="Write section 2.3's pre-norm block: normalisation, attention and residual sum, then the same "
        "with the feed-forward layer.",
        hints=("The norm precedes each sub-layer, and the residual path is not normalised.",),
        tries=of_blocks,
    ),
    Exercise(
        name="sampling",
        of="model.sampling_probabilities",
        task="Return softmax(logits / temperature) over the top_k tokens. At temperature 0 only the most "
        "probable token remains.",
        hints=(
            "Set all but the top_k logits to -inf before the softmax.",
            "For a temperature of 0 return a one-hot vector at the largest logit, in the logits' dtype.",
        ),
        tries=of_logits,
        gradients=False,
    ),
)
