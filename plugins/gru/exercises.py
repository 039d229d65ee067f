"""Exercises: the equations, and the backward pass by hand."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("one step", *layer(draw, 1, 1, 2, 2))
    yield Try("3 steps", *layer(draw, 2, 3, 2, 1))
    yield Try("4 steps, 3 units", *layer(draw, 2, 4, 2, 3))


def of_both(draw: Draw) -> Iterator[Try]:
    yield from of_layers(draw)
    yield Try("the reset gate after the product", *layer(draw, 2, 3, 2, 2), reset_after=True)


def layer(draw: Draw, batch: int, time: int, inputs: int, hidden: int) -> tuple[object, ...]:
    weights = draw(3 * hidden, inputs), draw(3 * hidden, hidden), draw(3 * hidden)
    return draw(batch, time, inputs), draw(batch, hidden), *weights


EXERCISES = (
    Exercise(
        name="steps",
        of="model.unroll",
        task="Equations 5 to 8: reset and update gate, candidate, and what is kept.",
        hints=(
            "The weights hold r, z and the candidate n below each other. r and z are sigmoids of both parts.",
            "The candidate's tanh sees the state times r; with reset_after, r times the state's product.",
            "The new state is z · h + (1 - z) · n.",
        ),
        tries=of_both,
    ),
    Exercise(
        name="backward",
        of="model.GatedRecurrentUnit.backward",
        task="The gradients of x, h and the three weights; r, z and n are in ctx.parts, states "
        "in ctx.states.",
        hints=(
            (
                "Walk from the last step to the first with dh. n gets dh · (1 - z) · (1 - n²), z dh · "
                "(h - n) · z(1 - z)."
            ),
            "r gets (dn @ U_n) · h · r(1 - r), with h the state before the step.",
            "dh becomes dh · z + (dn @ U_n) · r + (dr, dz) @ U_gates.",
        ),
        tries=of_layers,
        through="model.unroll_fast",
    ),
)
