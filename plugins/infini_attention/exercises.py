"""Exercises: read from the memory, write to it, and mix memory and local attention with the gate."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import InfiniAttention, Memory


def memory(draw: Draw, *heads: int, dim: int) -> Memory:
    """A memory with a positive z, as it is after some writes."""
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
        task="Equation 3: return the value that each query retrieves from the memory, or zeros from an "
        "empty memory.",
        hints=(
            "Linear attention: a weighted sum of all values so far, divided by the sum of the weights.",
            "σ(q) times M gives the weighted sum of values, and σ(q) times z gives the sum of the weights.",
            "Clamp the divisor at 1e-6. An empty memory then gives zeros.",
        ),
        tries=of_queries,
    ),
    Exercise(
        name="update",
        of="model.update",
        task="Equations 4 and 5: write a segment's keys and values to the memory, by the linear or the delta "
        "rule.",
        hints=(
            "For every token, add the outer product of σ(key) and value to M, and σ(key) to z.",
            "The delta rule writes the value minus the value that the old memory retrieves for the key.",
            "Cast v to M's dtype first. The sum of all tokens' outer products is σ(k).mT @ v.",
        ),
        tries=of_writes,
    ),
    Exercise(
        name="gate",
        of="model.InfiniAttention.mixed",
        task="Equation 6: mix memory and local attention with each head's gate, then apply the output layer.",
        hints=(
            "Local attention is causal attention with q and k rotated to positions 0, 1, ...",
            "Read the memory with the unrotated q. Positions must be in float32 or wider.",
            "Per head, the memory has the weight sigmoid(self.gate), and local attention has the rest.",
        ),
        tries=of_gates,
    ),
    Exercise(
        name="stream",
        of="model.InfiniAttention.stream",
        task="Process one segment, and return the result and the memory after it.",
        hints=(
            "self.project gives queries, keys and values. self.mixed and update do the rest.",
            "Read the memory as it was before this segment, and write to it afterwards.",
        ),
        tries=of_segments,
    ),
)
