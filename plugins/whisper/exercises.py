"""Exercises: the encoder, attention with a cache, the decoder's layer, the rules of times."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import Attention, DecoderLayer, Encoder, Seen, Size

SMALL = Size(1, 4, 2, mels=2, frames=6, tokens=4, vocab=5)


def of_sounds(draw: Draw) -> Iterator[Try]:
    yield Try("2 frames", Encoder(SMALL), draw(1, 2, 2))
    yield Try("5 frames", Encoder(SMALL), draw(2, 5, 2))


def of_attentions(draw: Draw) -> Iterator[Try]:
    for label, batch, positions, keys, named in (
        ("one position", 1, 1, 2, {}),
        ("3 positions", 2, 3, 2, {}),
        ("causal", 1, 3, 3, {"causal": True}),
        ("causal, with keys from before", 2, 2, 4, {"causal": True}),
    ):
        kept = draw(batch, 2, keys, 2), draw(batch, 2, keys, 2)
        yield Try(label, Attention(4, 2), draw(batch, positions, 4), *kept, **named)


def of_layers(draw: Draw) -> Iterator[Try]:
    yield Try("the first tokens", DecoderLayer(2, 1), draw(1, 2, 2), draw(1, 3, 2))
    seen = Seen(*(draw(2, 1, size, 2) for size in (2, 2, 3, 3)))
    yield Try("a token after others", DecoderLayer(2, 1), draw(2, 1, 2), None, seen)


def of_times(draw: Draw) -> Iterator[Try]:
    # Text is 0 to 2, the end 3, "no times" 4, and the times 5 to 8.
    for label, said in (
        ("nothing was said", []),
        ("a time was said", [5]),
        ("text after a time", [6, 1]),
        ("the text has ended", [5, 1, 6]),
        ("the next has begun", [5, 1, 6, 6]),
    ):
        text_is_likely = draw(9)
        text_is_likely[:3] += 5
        yield Try(label, text_is_likely, said, 3, 5)
        yield Try(f"{label}, times are likely", draw(9), said, 3, 5)


EXERCISES = (
    Exercise(
        name="encoder",
        of="model.Encoder.forward",
        task="Section 2.2: two convolutions, positions, layers and the last norm.",
        hints=(
            "The convolutions want the bands before the frames. A GELU follows each.",
            "Half of the frames are left: add as many positions.",
        ),
        tries=of_sounds,
    ),
    Exercise(
        name="attention",
        of="model.Attention.forward",
        task="Attention to keys and values that are given, as split heads.",
        hints=(
            "split gives the queries their heads. Swap heads and positions back before out_proj.",
            "With more keys than queries, the causal mask is shifted: the last query sees all keys.",
        ),
        tries=of_attentions,
    ),
    Exercise(
        name="decoder layer",
        of="model.DecoderLayer.forward",
        task="Attention to the text and to the sound, the perceptron, and what to keep for later tokens.",
        hints=(
            "Without `seen` the sound's keys and values are projected; with it they are in it.",
            "New keys and values of the text go behind those that were seen.",
            "Three sublayers, each with a norm before it and a residual. The sound is not normalised.",
        ),
        tries=of_layers,
    ),
    Exercise(
        name="times",
        of="decoding.in_time",
        task="Section 2.3: logits in which tokens that break the rules of times are -inf.",
        hints=(
            "A text is: a time, tokens, a time. The token 'no times' is never said.",
            "After text, times up to the last are out. After a text's end: a time no earlier, or the end.",
            "Last: if the logsumexp of the times exceeds the largest other logit, all others are -inf.",
        ),
        tries=of_times,
    ),
)
