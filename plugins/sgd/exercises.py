"""Exercises: the step, and the vector that every optimiser of the family works on."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try


def of_steps(draw: Draw) -> Iterator[Try]:
    yield Try("two weights", draw(2), draw(2), t=1, lr=0.1)
    yield Try("three weights", draw(3), draw(3), t=4, lr=0.3)


def of_tensors(draw: Draw) -> Iterator[Try]:
    yield Try("one tensor", [draw(2)])
    yield Try("other shapes", [draw(2, 2), draw(3), draw(1, 2, 1)])
    yield Try("a single number", [draw(2), draw()])


EXERCISES = (
    Exercise(
        name="step",
        of="model.SGD.update",
        task="w ← w - lr g, in place.",
        hints=("The tensor itself changes: w -= ..., w.sub_(...) or w.add_(..., alpha=...).",),
        tries=of_steps,
    ),
    Exercise(
        name="one vector",
        of="flat.joined",
        task="All numbers in one new vector, and each tensor as a view of its part, in its own shape.",
        hints=(
            "torch.cat of the tensors as vectors makes the vector.",
            "vector.split takes a list of sizes and gives views; part.view gives one a shape.",
        ),
        tries=of_tensors,
    ),
)
