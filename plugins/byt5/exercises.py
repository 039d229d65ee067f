"""Exercises: convert texts to ids and back, pad a batch of texts, and write the gated layer."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import GatedGELU


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("ASCII", "ab")
    yield Try("two bytes per letter", "é")
    yield Try("bytes", b"\x00\xff")
    yield Try("nothing", "")


def of_ids(draw: Draw) -> Iterator[Try]:
    yield Try("bytes and the end", [100, 101, 1])
    yield Try("without an end", [3, 258])
    yield Try("ids after the end", [100, 1, 101, 1])
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
        task="Convert a text, or its bytes, to ids.",
        hints=("str.encode returns UTF-8. Add FIRST_BYTE to each byte, and append END.",),
        tries=of_texts,
    ),
    Exercise(
        name="bytes",
        of="model.to_bytes",
        task="Convert ids back to bytes.",
        hints=(
            "Stop at the first END, if there is one.",
            "Only the 256 ids from FIRST_BYTE on are bytes. Skip all other ids.",
        ),
        tries=of_ids,
    ),
    Exercise(
        name="padding",
        of="model.padded",
        task="Pad texts to one length, and return a mask that is False at padding.",
        hints=("Append PAD to the shorter texts.",),
        tries=of_batches,
    ),
    Exercise(
        name="gated GELU",
        of="model.GatedGELU.forward",
        task="Write the gated feed-forward layer that mT5 uses in place of T5's.",
        hints=(
            "Multiply two projections elementwise. One of them first goes through the tanh form of GELU.",
            "The gate goes through GELU. Dropout is applied before `down`.",
        ),
        tries=of_layers,
    ),
)
