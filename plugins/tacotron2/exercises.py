"""Exercises: location-sensitive attention, the pre-net, zoneout, and the decoder's step."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import Decoder, LocationSensitiveAttention, Prenet, Sizes, State

SMALL = Sizes(bands=2, encoder=2, prenet=2, rnn=2, attention=2, filters=1, taps=3, group=1)


def of_queries(draw: Draw) -> Iterator[Try]:
    for label, location in (("2 symbols", True), ("without location", False)):
        layer = LocationSensitiveAttention(2, 3, 2, 2, 3, location)
        yield Try(label, layer, draw(1, 2), draw(1, 2, 2), draw.between(0, 1, 1, 2, 2), mask(2, 2))
    layer = LocationSensitiveAttention(3, 2, 2, 2, 3)
    yield Try(
        "the last is padding", layer, draw(2, 3), draw(2, 4, 2), draw.between(0, 1, 2, 2, 4), mask(4, 3)
    )


def mask(symbols: int, count: int) -> torch.Tensor:
    return torch.arange(symbols)[None] < count


def of_frames(draw: Draw) -> Iterator[Try]:
    yield Try("one frame", Prenet(2, 3, 0.5), draw(1, 2))
    yield Try("evaluation", Prenet(3, 4, 0.5).eval(), draw(3, 3))
    yield Try("without dropout", Prenet(3, 2, 0.0), draw(2, 2, 3))


def of_units(draw: Draw) -> Iterator[Try]:
    yield Try("training", Decoder(SMALL), draw(3, 4), draw(3, 4))
    yield Try("evaluation", Decoder(SMALL).eval(), draw(2, 3), draw(2, 3))


def of_steps(draw: Draw) -> Iterator[Try]:
    for label, batch, symbols in (("one row", 1, 2), ("2 rows", 2, 3)):
        decoder = Decoder(SMALL).eval()
        weights = draw.between(0, 1, 2, batch, symbols)
        state = State(*draw(4, batch, 2), *weights, draw(batch, 2))
        memory, keys = draw(batch, symbols, 2), draw(batch, symbols, 2)
        yield Try(label, decoder, draw(batch, 2), state, memory, keys, mask(symbols, 2).expand(batch, -1))


EXERCISES = (
    Exercise(
        name="attention",
        of="model.LocationSensitiveAttention.forward",
        task="Compute the attention weights from the query, the keys and the past weights.",
        hints=(
            "Add the projected query, the keys and, if there is a location layer, its features.",
            "The energy is v · tanh of the sum. Set it to -inf for padding before the softmax.",
        ),
        tries=of_queries,
    ),
    Exercise(
        name="pre-net",
        of="model.Prenet.forward",
        task="Apply linear layers with ReLU, and dropout that is always active.",
        hints=("Use F.dropout with training=True after each ReLU.",),
        tries=of_frames,
    ),
    Exercise(
        name="zoneout",
        of="model.Decoder.zone",
        task="Apply zoneout: keep old values at random in training, and take the expectation in evaluation.",
        hints=(
            "In training, units with rand_like(new) < zoneout keep their old value.",
            "In evaluation, average both values with the weights zoneout and 1 - zoneout.",
        ),
        tries=of_units,
    ),
    Exercise(
        name="step",
        of="model.Decoder.step",
        task="Compute one step of the decoder: its frames, the stop logit, and the new state.",
        hints=(
            "The lower LSTM gets the frame and the old context. Its state after zoneout is the query.",
            (
                "Stack the last weights and the sum of all weights. The new context is the weighted sum "
                "of the memory."
            ),
            (
                "The upper LSTM gets the lower state and the new context. Both output layers get the upper "
                "state and the context."
            ),
        ),
        tries=of_steps,
    ),
)
