"""Exercises: write partially connected maps, sub-sampling, distances to target images, and the loss."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Convolution, Output, SubSampling


def of_tables(draw: Draw) -> Iterator[Try]:
    yield Try("2 maps of 2", Convolution(((0,), (0, 1)), 1))
    yield Try("3 maps of 3", Convolution(((0, 2), (1,), (0, 1, 2)), 2))


def of_maps(draw: Draw) -> Iterator[Try]:
    yield Try("one map", SubSampling(1), draw(1, 1, 2, 4))
    yield Try("3 maps", SubSampling(3), draw(2, 3, 4, 2))


def of_drawings(draw: Draw) -> Iterator[Try]:
    yield Try("one drawing", Output(), draw(1, 84))
    yield Try("2 drawings", Output(), draw(2, 84))


def of_penalties(draw: Draw) -> Iterator[Try]:
    yield Try("rubbish constant 0.2", draw(2, 3).abs(), torch.tensor([2, 0]), rubbish=0.2)
    yield Try("2 classes", draw(1, 2).abs(), torch.tensor([1]))
    yield Try("3 classes", 2 * draw(4, 3).abs(), torch.tensor([0, 2, 1, 1]))


EXERCISES = (
    Exercise(
        name="partial connections",
        of="model.Convolution.full_weight",
        task="Return table I as one weight tensor, with the filters in their places and zeros for missing "
        "connections.",
        hints=(
            "self.places gives the index of each filter among the (maps · maps_in) pairs of maps.",
            "index_copy the filters into zeros, then unflatten.",
        ),
        tries=of_tables,
    ),
    Exercise(
        name="sub-sampling",
        of="model.SubSampling.forward",
        task="Halve the height and the width, with a coefficient and a bias for each map.",
        hints=("Add the four neighbours. Do not take their mean.",),
        tries=of_maps,
    ),
    Exercise(
        name="distances",
        of="model.Output.forward",
        task="Equation 7: compute the penalty of each class.",
        hints=(
            "The penalty is the squared Euclidean distance to each row of self.codes.",
            (
                "Expand the square, so that one matrix product suffices. A code's squared norm is its "
                "length, 84."
            ),
        ),
        tries=of_drawings,
    ),
    Exercise(
        name="loss",
        of="model.loss",
        task="Equation 9: compute the discriminative loss, with its constant for the rubbish class.",
        hints=(
            "Add log(e^-j + Σ e^-penalty), with the sum over all classes, to the penalty of the right class.",
            "The constant is one more entry of the logsumexp. Average over the batch.",
        ),
        tries=of_penalties,
    ),
)
