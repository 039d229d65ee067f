"""Exercises: write the attention of the sparse layers."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_heads(draw: Draw) -> Iterator[Try]:
    for label, tokens, keys, window in (
        ("a window of 1", 2, 2, 1),
        ("a window of 2", 4, 4, 2),
        ("more keys than queries", 2, 5, 3),
        ("a window wider than the text", 3, 3, 5),
    ):
        yield Try(label, draw(1, 2, tokens, 2), draw(1, 2, keys, 2), draw(1, 2, keys, 2), window=window)


EXERCISES = (
    Exercise(
        name="banded attention",
        of="model.locally_banded",
        task="Write attention to the last `window` tokens, including the query's own.",
        hints=(
            "The first query is at position keys - tokens.",
            "A query may attend to keys from 0 to window - 1 positions before it.",
        ),
        tries=of_heads,
    ),
)
