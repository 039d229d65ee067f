"""Exercises: write the shared code, the augmented data, the loss, and Flamingo's gates."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .flamingo import GatedCrossAttention
from .model import MultimodalAutoencoder


def bimodal() -> MultimodalAutoencoder:
    sizes = {"sound": 2, "sight": 3}
    return MultimodalAutoencoder(sizes, sizes, hidden=2, code=2)


def of_inputs(draw: Draw) -> Iterator[Try]:
    yield Try("both modalities", bimodal(), {"sound": draw(2, 2), "sight": draw(2, 3)})
    yield Try("one is missing", bimodal(), {"sight": draw(2, 3)})
    yield Try("the other is missing", bimodal(), {"sound": draw(1, 2)})


def of_films(draw: Draw) -> Iterator[Try]:
    yield Try("one row", bimodal(), {"sound": draw(1, 2), "sight": draw(1, 3)})
    yield Try("3 rows", bimodal(), {"sound": draw(3, 2), "sight": draw(3, 3)})


def of_targets(draw: Draw) -> Iterator[Try]:
    yield Try("one modality", {"sight": draw(2, 3)}, {"sight": draw(2, 3)})
    yield Try(
        "both modalities",
        {"sound": draw(2, 2), "sight": draw(2, 4)},
        {"sound": draw(2, 2), "sight": draw(2, 4)},
    )
    yield Try("three times as many rows", {"sound": draw(6, 3)}, {"sound": draw(2, 3)})


def of_gates(draw: Draw) -> Iterator[Try]:
    yield Try("one head", GatedCrossAttention(2, 1, context=3), draw(1, 2, 2), draw(1, 2, 3))
    yield Try("2 heads", GatedCrossAttention(4, 2, context=2), draw(2, 3, 4), draw(2, 2, 2))


EXERCISES = (
    Exercise(
        name="code",
        of="model.MultimodalAutoencoder.code",
        task="Compute one code from whichever modalities are present.",
        hints=(
            "self.hidden gives the activations of one encoder, and takes None for a missing modality.",
            "Loop over self.encoders, concatenate the activations, then apply shared and tanh.",
        ),
        tries=of_inputs,
    ),
    Exercise(
        name="augmented data",
        of="model.MultimodalAutoencoder.tripled",
        task="Section 3: concatenate the codes of both modalities together and of each modality alone.",
        hints=(
            "Compute each encoder's ReLU activations twice: for its modality, and for zeros.",
            "The rows form three blocks: all modalities together, then each encoder's modality alone.",
        ),
        tries=of_films,
    ),
    Exercise(
        name="loss",
        of="model.reconstruction_loss",
        task="Compute the reconstruction error, with the same weight for every modality.",
        hints=(
            "Compute the mean squared error for each modality, and sum them.",
            "Repeat the targets as a block until there are as many targets as outputs.",
        ),
        tries=of_targets,
    ),
    Exercise(
        name="gated attention",
        of="flamingo.GatedCrossAttention.forward",
        task="Write Flamingo's layer: cross-attention and a feed-forward layer, each with a tanh gate.",
        hints=(
            "The two gates are the tanh of self.gates.",
            "Each part is x + gate · sublayer(norm(x)). The image vectors are not normalised.",
        ),
        tries=of_gates,
    ),
)
