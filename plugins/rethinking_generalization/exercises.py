"""Exercises: compute theorem 1's weights, and write lemma 1's network."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Memory


def of_points(draw: Draw) -> Iterator[Try]:
    yield Try("one example", draw(1), draw(1))
    yield Try("2 examples", draw(2), draw(2))
    yield Try("5 examples", draw(5), draw(5))


def of_networks(draw: Draw) -> Iterator[Try]:
    yield Try("one example", Memory(draw(1, 2), draw(1), draw(2)), draw(2, 2))
    yield Try("4 examples", Memory(draw(4, 3), draw(4), draw(3)), draw(3, 3))


EXERCISES = (
    Exercise(
        name="memorise",
        of="model.memorise",
        task="Compute the thresholds and weights with which the network outputs every example's label.",
        hints=(
            "Sort the examples. Then unit j is 0 for all examples before j, and the system is triangular.",
            "Between two examples the network is linear. The slope there is the sum of the weights so far.",
            "The slopes are differences of y divided by z - b. The weights are differences of slopes.",
        ),
        tries=of_points,
    ),
    Exercise(
        name="network",
        of="model.Memory.forward",
        task="Implement lemma 1's network: a projection, a ReLU above each threshold, and a weighted sum.",
        hints=("Project onto a, subtract every threshold, apply the ReLU, and multiply by w.",),
        tries=of_networks,
    ),
)
