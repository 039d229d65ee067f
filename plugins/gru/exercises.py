"""Exercises: write the equations, and the backward pass by hand."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("one step", *layer(draw, 1, 1, 2, 2))
    yield Try("3 steps", *layer(draw, 2, 3, 2, 1))
    yield Try("4 steps, 3 units", *layer(draw, 2, 4, 2, 3))


def of_both(draw: Draw) -> Iterator[Try]:
    yield from of_layers(draw)
    yield Try("the reset gate after the matrix", *layer(draw, 2, 3, 2, 2), reset_after=True)


def layer(draw: Draw, batch: int, time: int, inputs: int, hidden: int) -> tuple[object, ...]:
    weights = draw(3 * hidden, inputs), draw(3 * hidden, hidden), draw(3 * hidden)
    return draw(batch, time, inputs), draw(batch, hidden), *weights


EXERCISES = (
    Exercise(
        name="steps",
        of="model.unroll",
        task="Equations 5 to 8: compute reset gate, update gate, candidate, and the new state.",
        hints=(
            (
                "The weights stack r, z and the candidate n. r and z are sigmoids of the sum of both "
                "projections."
            ),
            "The input of the candidate's tanh contains U (r · h), or r · (U h) with reset_after.",
            "The new state is z · h + (1 - z) · n.",
        ),
        tries=of_both,
    ),
    Exercise(
        name="backward",
        of="model.GatedRecurrentUnit.backward",
        task="Return the gradients of x, h and the three weights. r, z and n are in ctx.parts, the states "
        "in ctx.states.",
        hints=(
            (
                "Carry dh from the last step back to the first. The gradient of n's pre-activation is dn = "
                "dh · (1 - z) · (1 - n²), and that of z's is dz = dh · (h - n) · z (1 - z)."
            ),
            "For r it is dr = (dn @ U_n) · h · r (1 - r), where h is the state before the step.",
            "dh becomes dh · z + (dn @ U_n) · r + (dr, dz) @ U_gates.",
        ),
        tries=of_layers,
        through="model.unroll_fast",
    ),
)
