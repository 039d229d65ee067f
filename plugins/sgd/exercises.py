"""Exercises: the step, and the vector that every optimiser of the family uses."""

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
        task="Compute w ← w - lr g, in place.",
        hints=("Change the tensor itself: w -= ..., w.sub_(...) or w.add_(..., alpha=...).",),
        tries=of_steps,
    ),
    Exercise(
        name="one vector",
        of="flat.joined",
        task="Copy all values to one new vector. Return it, and each tensor as a view of its part, with the "
        "tensor's shape.",
        hints=(
            "Concatenate the flattened tensors with torch.cat.",
            "vector.split takes a list of sizes and returns views. part.view sets the shape of a view.",
        ),
        tries=of_tensors,
    ),
)
