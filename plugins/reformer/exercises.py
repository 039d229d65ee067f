"""Exercises: write hashing, attention in sorted chunks, counting of meetings, and inverse layers."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Layer


def of_vectors(draw: Draw) -> Iterator[Try]:
    yield Try("two buckets, one round", draw(1, 1, 4, 2), draw(1, 2, 1, 1))
    yield Try("6 buckets, 2 rounds", draw(1, 1, 5, 4), draw(1, 4, 2, 3))
    yield Try("batch and heads", draw(2, 2, 4, 3), draw(2, 3, 2, 2))


def of_chunks(draw: Draw) -> Iterator[Try]:
    def attention(tokens: int, rounds: int, *, batch: int = 1, heads: int = 1) -> tuple[object, ...]:
        shape = batch, heads, tokens
        return draw(*shape, 2), draw(*shape, 3), draw.below(4, batch, heads, rounds, tokens)

    yield Try("one round", *attention(6, 1), width=2)
    yield Try("one chunk alone", *attention(3, 1), width=3)
    yield Try("2 rounds", *attention(6, 2), width=2)
    yield Try("not causal", *attention(6, 2), width=2, causal=False)
    yield Try("batch and heads", *attention(8, 2, batch=2, heads=2), width=2)


def of_meetings(draw: Draw) -> Iterator[Try]:
    def tokens(rounds: int, chunks: int) -> tuple[object, ...]:
        chunk = draw.below(chunks, 2, 1, rounds, 6)
        here = draw.below(6, 2, 1, rounds, 3, 2)
        return chunk, here, draw.below(6, 2, 1, rounds, 3, 4), chunks

    yield Try("one round", *tokens(1, 3))
    yield Try("3 rounds", *tokens(3, 3))
    yield Try("5 chunks", *tokens(2, 5))


def of_layers(draw: Draw) -> Iterator[Try]:
    def stack(count: int) -> tuple[object, ...]:
        layers = [Layer(4, 2, 3, buckets=2, rounds=1, width=2) for _ in range(count)]
        buckets = [draw.below(2, 2, 2, 1, 4) for _ in range(count)]
        return layers, buckets, draw(2, 4, 4), draw(2, 4, 4)

    yield Try("one layer", *stack(1))
    yield Try("3 layers", *stack(3))


EXERCISES = (
    Exercise(
        name="buckets",
        of="model.hashed",
        task="Compute the bucket of each vector in each round of hashing.",
        hints=(
            "Multiply x by each round's rotation. A bucket is a direction or the opposite of a direction.",
            "Concatenate the projections and their negatives. The index of the largest is the bucket.",
        ),
        tries=of_vectors,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="meetings",
        of="model.meetings",
        task="Count the rounds in which each key is in the query's chunk, or in the previous chunk.",
        hints=(
            "`chunk` has each token's chunk in each round. Gather it at `here` and at `there`.",
            "The last chunk precedes the first one: (mine - 1) % chunks.",
            (
                "For the pairs formed in each round, check in every round whether they meet. The result has "
                "the axes of `here` plus the width of `there`."
            ),
        ),
        tries=of_meetings,
        gradients=False,
    ),
    Exercise(
        name="chunks",
        of="model.lsh_attention",
        task="Sort by bucket, attend within chunks, undo the sorting, and combine the rounds.",
        hints=(
            (
                "Take the argsort of bucket · tokens + position, gather, unflatten into chunks, and roll "
                "to get the previous chunk."
            ),
            "Mask later keys, set a token's score with itself to ITSELF, and subtract log(meetings).",
            (
                "Undo the sorting of softmax @ values and logsumexp. A softmax of the logsumexps weights the "
                "rounds."
            ),
        ),
        tries=of_chunks,
    ),
    Exercise(
        name="way back",
        of="model.inverse",
        task="Recompute the inputs of reversible layers from their outputs, by solving equation 9.",
        hints=(
            "Start from the last layer. y2 = x2 + feed-forward(y1), and y1 is known.",
            "With x2 known, y1 = x1 + attention(x2). layer(x, r) is attention, and layer(x) is feed-forward.",
        ),
        tries=of_layers,
    ),
)
