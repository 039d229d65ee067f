"""Exercises: the recurrence, and the adding problem."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("one step", draw(1, 1, 2), draw(1, 2), draw(2, 2), draw(2, 2), draw(2))
    yield Try("3 steps", draw(2, 3, 2), draw(2, 1), draw(1, 2), draw(1, 1), draw(1))
    yield Try("4 steps, 3 units", draw(2, 4, 2), draw(2, 3), draw(3, 2), draw(3, 3), draw(3))


def of_sums(draw: Draw) -> Iterator[Try]:
    yield Try("4 steps", 2, 4, draw.generator)
    yield Try("5 steps", 3, 5, draw.generator)
    yield Try("marks in the last 2 of 5", 2, 5, draw.generator, window=2)


EXERCISES = (
    Exercise(
        name="steps",
        of="model.unroll",
        task="Compute all states, h_t = tanh(W x_t + U h_(t-1) + b) for every t.",
        hints=(
            "One matrix multiplication projects the inputs of all steps.",
            "The state contributes state @ recurrent_weight.mT. Stack the states along the time axis.",
        ),
        tries=of_layers,
    ),
    Exercise(
        name="adding problem",
        of="tasks.adding_problem",
        task="Generate random values with a mark in each half. The target is the sum of the marked values.",
        hints=(
            "Draw the values, then a mark in the first half of the window, then one in the second half.",
            "The window is at the end, so add length - window to the positions of the marks.",
            "An input is (value, mark). Stack them along the last axis.",
        ),
        tries=of_sums,
    ),
)
