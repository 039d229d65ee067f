"""Exercises: positions, the learning rate, label smoothing, and the decoder layer."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import DecoderLayer


def of_sines(draw: Draw) -> Iterator[Try]:
    yield Try("one pair", 3, 2, dtype=torch.float64)
    yield Try("3 pairs", 4, 6, dtype=torch.float64)


def of_steps(draw: Draw) -> Iterator[Try]:
    for step in (1, 3, 4, 5, 100):
        yield Try(f"step {step} with a warm-up of 4", step, model=16, warmup=4)


def of_targets(draw: Draw) -> Iterator[Try]:
    yield Try("one word of 3", draw(1, 3), draw.below(3, 1))
    yield Try("2 sentences", draw(2, 3, 4), draw.below(4, 2, 3))
    yield Try("epsilon 0.5", draw(3, 5), draw.below(5, 3), epsilon=0.5)


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("2 words, 3 in the source", DecoderLayer(2, 1, 3), draw(1, 2, 2), draw(1, 3, 2))
    visible = draw.mask(2, 1, 4)
    visible[..., 0] = True
    yield Try("padding in the source", DecoderLayer(4, 2, 5), draw(2, 3, 4), draw(2, 4, 4), visible=visible)


EXERCISES = (
    Exercise(
        name="positions",
        of="model.sines",
        task="Section 3.5: sine and cosine of position / 10000^(2i / model), in alternating columns.",
        hints=(
            "The exponents 2i / model are 0, 2/model, 4/model, ..., one for each pair of columns.",
            (
                "Even columns are sines, and odd columns are cosines. Stack both along a new last "
                "dimension, and flatten."
            ),
        ),
        tries=of_sines,
    ),
    Exercise(
        name="learning rate",
        of="model.learning_rate",
        task="Equation 3: rise linearly, then fall with the inverse square root of the step.",
        hints=("Multiply model^-0.5 by the smaller of step^-0.5 and step · warmup^-1.5.",),
        tries=of_steps,
    ),
    Exercise(
        name="label smoothing",
        of="model.smoothed_cross_entropy",
        task="Section 5.4: the correct word has the weight 1 - epsilon, and all words share the rest.",
        hints=(
            "The loss is minus the log-probabilities weighted by the targets, averaged over the words.",
            (
                "The correct word has the target 1 - epsilon + epsilon / vocab, and every other word "
                "epsilon / vocab."
            ),
        ),
        tries=of_targets,
    ),
    Exercise(
        name="decoder layer",
        of="model.DecoderLayer.forward",
        task="Section 3.1: causal self-attention, attention to the source, and the feed-forward network.",
        hints=(
            "Compute norm(x + dropout(part(x))) three times, with norms 0, 1 and 2.",
            "The mask hides words of the source, so pass it to source_attention only.",
        ),
        tries=of_layers,
    ),
)
