"""Exercises: write response normalisation and the convolutional layers, and compute the last maps' size."""

from collections.abc import Iterator
from copy import deepcopy

from readtrack.plugin import Draw, Exercise, Try

from .model import AlexNet


def of_maps(draw: Draw) -> Iterator[Try]:
    yield Try("2 maps", draw(1, 2, 1, 2), n=3, alpha=0.5)
    yield Try("6 maps", 3 * draw(2, 6, 1, 2), alpha=0.1)
    yield Try("another power", draw(1, 4, 2, 1), n=3, k=1.0, alpha=0.3, beta=0.5)
    yield Try("the paper's constants", 20 * draw(1, 7, 1, 1))


def of_images(draw: Draw) -> Iterator[Try]:
    network = AlexNet(widths=(2, 2, 2, 2, 2), hidden=3, classes=2, side=67).eval()
    yield Try("the smallest image", network, 9 * draw(1, 3, 67, 67))
    yield Try("another network", deepcopy(network), 9 * draw(2, 3, 67, 67))


def of_sides(draw: Draw) -> Iterator[Try]:
    for side in (67, 99, 227):
        yield Try(f"side {side}", side)


EXERCISES = (
    Exercise(
        name="response normalisation",
        of="model.response_norm",
        task="Apply section 3.3: normalise each activation by the neighbouring maps.",
        hints=(
            "Divide each activation by (k + alpha · sum of squares)^beta.",
            "Sum over the map itself and n // 2 maps on each side. There are fewer maps at the ends.",
        ),
        tries=of_maps,
    ),
    Exercise(
        name="features",
        of="model.AlexNet.features",
        task="Apply the five convolutions of figure 2, each with activation, normalisation and pooling.",
        hints=(
            "A ReLU follows each convolution. The first two are normalised and then pooled.",
            "The fifth is also pooled.",
        ),
        tries=of_images,
        gradients=False,
    ),
    Exercise(
        name="last maps",
        of="model.final_side",
        task="Compute the height and width of the maps that the first hidden layer reads.",
        hints=(
            (
                "A window of size w with stride s fits (side - w) // s + 1 times. Padded convolutions keep "
                "the size."
            ),
            (
                "The layers that shrink the maps are one convolution (size 11, stride 4) and three poolings "
                "(size 3, stride 2)."
            ),
        ),
        tries=of_sides,
    ),
)
