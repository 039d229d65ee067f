"""Exercises: the masks, the skewed map and its inverse, and the two recurrent layers."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import DiagonalBiLSTM, RowLSTM


def of_masks(draw: Draw) -> Iterator[Try]:
    yield Try("A, 3 × 5", "A", 1, 1, 3, 5)
    yield Try("B, 3 × 3", "B", 1, 1, 3, 3)
    yield Try("A, 3 colours", "A", 3, 6, 1, 5, 3)
    yield Try("B, 3 colours", "B", 6, 3, 3, 1, 3)


def of_maps(draw: Draw) -> Iterator[Try]:
    yield Try("2 × 2", draw(2, 2, 1))
    yield Try("3 × 2, batched", draw(2, 3, 2, 2))
    yield Try("one row", draw(1, 3, 1))


def of_skewed(draw: Draw) -> Iterator[Try]:
    yield Try("2 × 2", draw(2, 3, 1), 2)
    yield Try("3 × 2, batched", draw(2, 3, 4, 2), 2)
    yield Try("one row", draw(1, 3, 1), 3)


def of_rows(draw: Draw) -> Iterator[Try]:
    yield Try("one row", RowLSTM(1, 1), draw(1, 1, 1, 3))
    yield Try("3 rows", RowLSTM(2, 2), draw(3, 2, 3, 2))


def of_diagonals(draw: Draw) -> Iterator[Try]:
    yield Try("one row", DiagonalBiLSTM(1, 1), draw(1, 1, 1, 3))
    yield Try("3 rows of 2", DiagonalBiLSTM(2, 2), draw(2, 2, 3, 2))


EXERCISES = (
    Exercise(
        name="mask",
        of="model.mask",
        task="Which weights of a kernel are kept, for masks A and B and any number of colours.",
        hints=(
            "All rows above the middle, and in the middle row all columns to the left of it.",
            "In the middle itself compare the colours of input and output: c % colours of channel c.",
            "An output sees inputs of smaller colours; with B of its own colour as well.",
        ),
        tries=of_masks,
    ),
    Exercise(
        name="skew",
        of="model.skew",
        task="Shift row r by r places to the right, without a loop over rows.",
        hints=(
            "Pad each row with as many zeros as there are rows, and flatten rows and columns.",
            "Read as rows that are one place shorter, each row starts one place later than the one before.",
        ),
        tries=of_maps,
    ),
    Exercise(
        name="unskew",
        of="model.unskew",
        task="The inverse of the shift.",
        hints=(
            "Flatten, pad at the end, and read as rows that are one place longer.",
            "Keep the first `width` places of each.",
        ),
        tries=of_skewed,
    ),
    Exercise(
        name="row LSTM",
        of="model.RowLSTM.forward",
        task="Section 3.1: a step of the LSTM for each row, and the residual connection.",
        hints=(
            "input_to_state of the whole map first, then a loop over its rows.",
            "A row's gates are its input part plus state_to_state of the row above; lstm_cell has them last.",
            "Stack the states as rows, channels second again, and add up(...) to x.",
        ),
        tries=of_rows,
    ),
    Exercise(
        name="diagonal BiLSTM",
        of="model.DiagonalBiLSTM.forward",
        task="Section 3.2: diagonals from both sides, skewed into columns.",
        hints=(
            "Stack the map and its mirror image; weigh inputs with the masked weights, then skew.",
            "A step sees h and h one row further up, side by side. Places outside the map are kept at 0.",
            "Mirror the right side's states back and move them one row down before you add the left side's.",
        ),
        tries=of_diagonals,
    ),
)
