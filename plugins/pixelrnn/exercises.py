"""Exercises: write the masks, skewing and its inverse, and the two recurrent layers."""

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
        task="Compute which weights of a kernel are kept, for masks A and B and any number of colours.",
        hints=(
            (
                "Keep all rows above the middle one, and in the middle row all columns to the left of the "
                "middle."
            ),
            (
                "In the middle itself, compare the colours of input and output. Channel c has colour c % "
                "colours."
            ),
            "An output sees inputs of lower-numbered colours, and with mask B also of its own colour.",
        ),
        tries=of_masks,
    ),
    Exercise(
        name="skew",
        of="model.skew",
        task="Shift row r by r positions to the right, without a loop over rows.",
        hints=(
            "Pad each row with one zero per row of the map, and flatten rows and columns.",
            "Reshape the result to rows one position shorter, so that each row starts one position later.",
        ),
        tries=of_maps,
    ),
    Exercise(
        name="unskew",
        of="model.unskew",
        task="Undo the shift of `skew`.",
        hints=(
            "Flatten, pad at the end, and reshape the result to rows that are one position longer.",
            "Keep the first `width` positions of each row.",
        ),
        tries=of_skewed,
    ),
    Exercise(
        name="row LSTM",
        of="model.RowLSTM.forward",
        task="Section 3.1: apply one LSTM step per row, and add the residual connection.",
        hints=(
            "Apply input_to_state to the whole map first, then loop over its rows.",
            "Add state_to_state(h) to a row to get its gates. lstm_cell expects gates in the last axis.",
            "Stack the states as rows, move the channels to the second dimension, and add up(...) to x.",
        ),
        tries=of_rows,
    ),
    Exercise(
        name="diagonal BiLSTM",
        of="model.DiagonalBiLSTM.forward",
        task="Section 3.2: loop over the columns of the skewed map, in both directions.",
        hints=(
            "Stack the map and its mirror image, multiply by the masked weights, and then skew.",
            "Each step sees h, and h shifted down by one row. Keep the states outside the map at 0.",
            "Flip the right-to-left states back, and move them down by one row before you add them.",
        ),
        tries=of_diagonals,
    ),
)
