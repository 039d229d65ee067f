"""Exercises: write the head as convolutions, and compare stacks of small filters with large filters."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_heads(draw: Draw) -> Iterator[Try]:
    for label, side, rows in (("one window", 2, 2), ("6 windows", 2, 3), ("windows of one place", 1, 2)):
        layers = draw(3, 2 * side**2), draw(3), draw(2, 3), draw(2), draw(4, 2), draw(4)
        yield Try(label, draw(2, 2, rows, rows + (rows > side)), *layers, side=side)


def of_stacks(draw: Draw) -> Iterator[Try]:
    for filters in ((3,), (3, 3), (5,), (7, 1, 3)):
        yield Try(f"filters of {', '.join(map(str, filters))}", filters)


def of_widths(draw: Draw) -> Iterator[Try]:
    for filters, maps in (((3, 3), 2), ((5,), 2), ((3, 3, 3), 4)):
        yield Try(f"filters of {', '.join(map(str, filters))}", filters, maps)


EXERCISES = (
    Exercise(
        name="dense head",
        of="model.dense_head",
        task="Apply the fully connected layers to every window of the feature maps, as in section 3.2.",
        hints=(
            "The first layer's weight, with inputs viewed as (maps, side, side), is a convolution filter.",
            "The other two layers are 1 × 1 convolutions. A ReLU follows all layers except the last.",
        ),
        tries=of_heads,
    ),
    Exercise(
        name="receptive field",
        of="model.seen",
        task="Compute the side of the receptive field of a stack of convolutions (section 2.3).",
        hints=("Each filter adds its size minus one.",),
        tries=of_stacks,
    ),
    Exercise(
        name="weights",
        of="model.weights_of",
        task="Compute the number of weights in the stack (section 2.3).",
        hints=("A filter of size k has k² weights for each pair of an input and an output map.",),
        tries=of_widths,
    ),
)
