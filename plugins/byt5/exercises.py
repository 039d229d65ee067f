"""Exercises: bytes as ids and back, a padded batch of texts, and the gated layer."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import GatedGELU


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("ASCII", "ab")
    yield Try("two bytes a letter", "é")
    yield Try("bytes", b"\x00\xff")
    yield Try("nothing", "")


def of_ids(draw: Draw) -> Iterator[Try]:
    yield Try("bytes and the end", [100, 101, 1])
    yield Try("without an end", [3, 258])
    yield Try("ids behind the end", [100, 1, 101, 1])
    yield Try("special ids", [0, 100, 2, 259, 383])


def of_batches(draw: Draw) -> Iterator[Try]:
    yield Try("one text", [[5, 1]])
    yield Try("3 texts", [[5, 6, 7, 1], [8, 1], [1]])


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("one row", GatedGELU(2, 3, 0.1).eval(), draw(2))
    yield Try("batched", GatedGELU(3, 3, 0.1).eval(), draw(2, 2, 3))


EXERCISES = (
    Exercise(
        name="ids",
        of="model.to_ids",
        task="A text, or its bytes, as ids.",
        hints=("str.encode gives UTF-8. FIRST_BYTE is added to each byte, and END comes last.",),
        tries=of_texts,
    ),
    Exercise(
        name="bytes",
        of="model.to_bytes",
        task="The bytes that the ids stand for.",
        hints=(
            "Cut at the first END, if there is one.",
            "Only the 256 ids from FIRST_BYTE on are bytes; leave out the others.",
        ),
        tries=of_ids,
    ),
    Exercise(
        name="padding",
        of="model.padded",
        task="A batch of texts, and a mask of what is not padding.",
        hints=("Fill the shorter texts with PAD behind their end.",),
        tries=of_batches,
    ),
    Exercise(
        name="gated GELU",
        of="model.GatedGELU.forward",
        task="The feed-forward layer that mT5 put in place of T5's.",
        hints=(
            "The product of two projections, of which one goes through GELU, approximated by tanh.",
            "The gate goes through GELU. Dropout stands before `down`.",
        ),
        tries=of_layers,
    ),
)
