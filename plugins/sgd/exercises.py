"""What to write oneself: the step, and the counting that every optimiser of the family shares."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_steps(draw: Draw) -> Iterator[Try]:
    yield Try("one weight", [draw(2)], [draw(2)], lr=0.1)
    yield Try("two weights of other shapes", [draw(2, 2), draw(3)], [draw(2, 2), draw(3)], lr=0.3)


EXERCISES = (
    Exercise(
        name="step",
        of="model.descend",
        task="w ← w - lr g for each tensor of a list, in place.",
        hints=(
            "The tensors themselves change: w -= ..., w.sub_(...), or torch._foreach_add_ for all at once.",
        ),
        tries=of_steps,
    ),
)
