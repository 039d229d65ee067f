"""Exercises: write the equations, and a backward pass by hand."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("one step", *layer(draw, 1, 1, 2, 2))
    yield Try("3 steps", *layer(draw, 2, 3, 2, 1))
    yield Try("4 steps, 3 units", *layer(draw, 2, 4, 2, 3))


def layer(draw: Draw, batch: int, time: int, inputs: int, hidden: int) -> tuple[object, ...]:
    states = draw(batch, hidden), draw(batch, hidden)
    weights = draw(4 * hidden, inputs), draw(4 * hidden, hidden), draw(4 * hidden)
    return draw(batch, time, inputs), *states, *weights


EXERCISES = (
    Exercise(
        name="steps",
        of="model.unroll",
        task="Apply the equations over a sequence. Return all states, and the last cell. The gates are i, "
        "f, g, o.",
        hints=(
            "One sum gives all four gates: the products with input and state, plus the bias. Use chunk.",
            "i, f and o are sigmoids, g is a tanh. The new cell is f · c + i · g.",
            "The new state is o · tanh(c), with the new cell. Stack the states along the time dimension.",
        ),
        tries=of_layers,
    ),
    Exercise(
        name="backward",
        of="model.LongShortTermMemory.backward",
        task=(
            "Return the gradients of x, h, c and the three weights. Time is the first dimension. "
            "ctx.saved_tensors has these six tensors, the gates (i, f, g, o, after sigmoid or tanh), and the "
            "states and cells, starting with the initial ones."
        ),
        hints=(
            "Loop from the last step to the first with dh and dc. Add dstates[t] to dh.",
            (
                "Add dh · o · (1 - tanh²(c)) to dc. Backpropagate each gate's gradient through its sigmoid "
                "or tanh."
            ),
            (
                "For the previous step, dh is the gates' gradient times recurrent_weight, and dc is "
                "multiplied by f."
            ),
        ),
        tries=of_layers,
        through="model.unroll_fast",
    ),
)
