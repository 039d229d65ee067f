"""Exercises: reading from the memory, writing to it, and the gate between memory and segment."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import InfiniAttention, Memory


def memory(draw: Draw, *heads: int, dim: int) -> Memory:
    """A memory with positive z, as after some writes."""
    return Memory(draw(*heads, dim, dim), draw.between(0.5, 2, *heads, dim))


def of_queries(draw: Draw) -> Iterator[Try]:
    yield Try("one token, one dimension", memory(draw, 1, dim=1), draw(1, 1, 1))
    yield Try("3 tokens", memory(draw, 1, dim=2), draw(1, 3, 2))
    yield Try("batch and heads", memory(draw, 2, 2, dim=3), draw(2, 2, 4, 3))
    yield Try("an empty memory", Memory(0 * draw(1, 2, 2), 0 * draw(1, 2)), draw(1, 2, 2))


def of_writes(draw: Draw) -> Iterator[Try]:
    yield Try("one token, one dimension", memory(draw, 1, dim=1), draw(1, 1, 1), draw(1, 1, 1), delta=False)
    yield Try("3 tokens", memory(draw, 2, dim=2), draw(2, 3, 2), draw(2, 3, 2), delta=False)
    yield Try("delta rule", memory(draw, 1, dim=2), draw(1, 3, 2), draw(1, 3, 2), delta=True)
    yield Try("delta, heads", memory(draw, 2, 2, dim=3), draw(2, 2, 2, 3), draw(2, 2, 2, 3), delta=True)


def of_gates(draw: Draw) -> Iterator[Try]:
    for label, heads, tokens, dim in (("one head", 1, 2, 2), ("two heads", 2, 3, 2), ("dim 4", 2, 3, 4)):
        shape = 2, heads, tokens, dim
        layer = InfiniAttention(heads * dim, heads, tokens)
        yield Try(label, layer, draw(*shape), draw(*shape), draw(*shape), memory(draw, 2, heads, dim=dim))


def of_segments(draw: Draw) -> Iterator[Try]:
    for delta in (False, True):
        for label, heads, tokens in (("one head", 1, 2), ("two heads", 2, 3)):
            layer = InfiniAttention(2 * heads, heads, tokens, delta=delta)
            text = f"{label}, delta rule" if delta else label
            yield Try(text, layer, draw(2, tokens, 2 * heads), memory(draw, 2, heads, dim=2))


EXERCISES = (
    Exercise(
        name="retrieve",
        of="model.retrieve",
        task="Equation 3: what each query reads from the memory; zeros from an empty one.",
        hints=(
            "Linear attention: a weighted sum of all values so far, divided by the sum of the weights.",
            "σ(q) times M gives the sum of values, σ(q) times z that of the weights.",
            "clamp the divisor at 1e-6, so that an empty memory gives zeros.",
        ),
        tries=of_queries,
    ),
    Exercise(
        name="update",
        of="model.update",
        task="Equations 4 and 5: a segment's keys and values are added, by the linear or the delta rule.",
        hints=(
            "M gets every token's outer product of σ(key) and value, z every token's σ(key).",
            "The delta rule writes the value minus what the old memory gives for the key.",
            "v takes M's dtype first. All tokens' outer products at once are σ(k).mT @ v.",
        ),
        tries=of_writes,
    ),
    Exercise(
        name="gate",
        of="model.InfiniAttention.mixed",
        task="Equation 6: what memory and segment give, mixed by head; then the output layer.",
        hints=(
            "The segment's part is causal attention of q and k rotated at positions 0, 1, ...",
            "The memory is read with q as it is, not rotated. Positions are float32 at least.",
            "sigmoid(self.gate) weighs the memory, one minus it the segment: one number for each head.",
        ),
        tries=of_gates,
    ),
    Exercise(
        name="stream",
        of="model.InfiniAttention.stream",
        task="One segment and the memory after it.",
        hints=(
            "self.project gives queries, keys and values; two functions do the rest.",
            "The memory is read as it was before this segment, and written to afterwards.",
        ),
        tries=of_segments,
    ),
)
