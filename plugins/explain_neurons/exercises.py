"""Exercises: score an explanation, record the neurons' activations, and ablate a neuron."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from ..gpt2 import GPT2
from .model import losses


def of_activations(draw: Draw) -> Iterator[Try]:
    yield Try("one neuron", draw(3, 1), draw.mask(3, 2).double())
    yield Try("3 neurons", draw(5, 3), draw(5, 2))
    constant = draw(4, 2)
    constant[:, 0] = 1
    yield Try("a constant neuron", constant, draw(4, 3))


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one layer", model(1), draw.below(4, 1, 3))
    yield Try("2 layers", model(2), draw.below(4, 2, 4))


def of_neurons(draw: Draw) -> Iterator[Try]:
    for label, layers, neuron in (("the first layer", 1, 2), ("the second layer", 2, 9)):
        network, ids = model(layers), draw.below(4, 2, 3)
        yield Try(label, network, ids, neuron, 2.0, losses(network, ids).double())


def model(layers: int) -> GPT2:
    return GPT2(4, context=4, model=2, heads=1, layers=layers, std=0.7)


EXERCISES = (
    Exercise(
        name="correlations",
        of="model.correlations",
        task="Compute Pearson's correlation of every neuron with every predicate, or 0 if one of them is "
        "constant.",
        hints=(
            "Subtract the means. One matrix multiplication then gives the dot products of all pairs.",
            "Divide by both norms. Where a norm is 0 the result is 0, not NaN.",
        ),
        tries=of_activations,
    ),
    Exercise(
        name="activations",
        of="model.activations_of",
        task="Compute the activations of all neurons on a text, in float32, starting with the first layer's.",
        hints=(
            "A forward hook on feed_forward[1] of each block receives the GELU's output.",
            "The model reads all ids but the last. Flatten windows and time, and remove the hooks.",
        ),
        tries=of_texts,
        tolerance=1e-5,
        gradients=False,
        half=False,
    ),
    Exercise(
        name="ablation",
        of="model.rise_without",
        task="Compute how much the loss at each character rises when one neuron's activation is fixed at a "
        "level.",
        hints=(
            "Neurons are numbered across all layers: the layer is neuron // width.",
            "A hook that returns a changed copy of the GELU's output replaces it.",
        ),
        tries=of_neurons,
        tolerance=1e-3,
        gradients=False,
        half=False,
    ),
)
