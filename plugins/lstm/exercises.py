"""Exercises: the equations, and the backward pass by hand."""

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
        task="The equations over a sequence: all states, and the last cell. The gates' order is i, f, g, o.",
        hints=(
            "One product gives all four gates: the input's part, the state's part and the bias. chunk them.",
            "i, f and o are sigmoids, g is a tanh. The new cell is f · c + i · g.",
            "The new state is o · tanh(c), with the new cell. Stack the states along the time.",
        ),
        tries=of_layers,
    ),
    Exercise(
        name="backward",
        of="model.LongShortTermMemory.backward",
        task=(
            "The gradients of x, h, c and the three weights; time is first. ctx.saved_tensors is these six, "
            "the gates (i, f, g, o, after sigmoid or tanh), and states and cells from step 0 on (one more)."
        ),
        hints=(
            "Walk from the last step to the first with dh and dc. Add dstates[t] to dh.",
            "dc grows by dh · o · (1 - tanh²(c)). Each gate's gradient goes through its sigmoid or tanh.",
            "To the step before: dh is the gates' gradient times recurrent_weight, dc is multiplied by f.",
        ),
        tries=of_layers,
        through="model.unroll_fast",
    ),
)
