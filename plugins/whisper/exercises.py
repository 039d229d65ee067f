"""Exercises: the encoder, attention with a cache, the decoder layer, and the timestamp rules."""

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
    # Tokens 0 to 2 are text, 3 is the end, 4 is "no times", and 5 to 8 are times.
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
        task="Section 2.2: apply two convolutions, add positions, and apply the layers and the last norm.",
        hints=(
            "The convolutions expect the bands before the frames. A GELU follows each of them.",
            "Half of the frames are left, so slice the position embeddings to that length.",
        ),
        tries=of_sounds,
    ),
    Exercise(
        name="attention",
        of="model.Attention.forward",
        task="Implement attention to given keys and values, whose heads are already split.",
        hints=(
            "`split` splits the queries into heads. Swap heads and positions back before out_proj.",
            "With more keys than queries, the causal mask is shifted: the last query sees all keys.",
        ),
        tries=of_attentions,
    ),
    Exercise(
        name="decoder layer",
        of="model.DecoderLayer.forward",
        task="Apply attention to the text, attention to the audio and the MLP, and return the new cache.",
        hints=(
            "Without `seen`, project the audio to keys and values. Otherwise take them from `seen`.",
            "Append the text's new keys and values to those in `seen`.",
            "There are three sublayers, each with a pre-norm and a residual. The audio is not normalised.",
        ),
        tries=of_layers,
    ),
    Exercise(
        name="times",
        of="decoding.in_time",
        task="Section 2.3: set the logits of tokens that break the timestamp rules to -inf.",
        hints=(
            (
                "Each segment consists of a start time, text tokens and an end time. The token 'no times' is "
                "never allowed."
            ),
            (
                "After text, the last time and all earlier times are not allowed. After an end time, "
                "earlier times and text are not allowed."
            ),
            "Last, if the logsumexp of the times exceeds the largest other logit, set all others to -inf.",
        ),
        tries=of_times,
    ),
)
