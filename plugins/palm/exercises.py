"""Exercises: write multi-query attention with a KV cache, the parallel block, and the loss."""

from collections.abc import Iterator

from readtrack.plugin import Draw, Exercise, Try

from .model import PaLM, ParallelBlock


def of_heads(draw: Draw) -> Iterator[Try]:
    yield Try("one head", draw(1, 3, 2), draw(1, 3, 2), draw(1, 3, 2), 2, None, 0)
    yield Try("3 heads share keys and values", draw(2, 3, 6), draw(2, 3, 2), draw(2, 3, 2), 2, None, 0)
    yield Try("two groups of two", draw(2, 3, 16), draw(2, 3, 8), draw(2, 3, 8), 4, None, 0)
    yield Try("2 tokens in the cache", draw(1, 1, 4), draw(1, 1, 2), draw(1, 1, 2), 2, draw(2, 1, 1, 4, 2), 2)


def of_blocks(draw: Draw) -> Iterator[Try]:
    yield Try("one head, hidden width 1", ParallelBlock(2, 1, 2, 1, 1), draw(1, 2, 2))
    yield Try("two heads on one", ParallelBlock(3, 2, 2, 1, 5), draw(2, 3, 3))
    yield Try("a token in the cache", ParallelBlock(2, 2, 2, 1, 3), draw(1, 2, 2), draw(2, 1, 1, 4, 2), 1)


def of_losses(draw: Draw) -> Iterator[Try]:
    yield Try("one token to predict", PaLM(3, model=2, heads=1, layers=1, dim=2), draw.below(3, 1, 2))
    yield Try("3 texts", PaLM(5, model=4, heads=2, layers=2, dim=2), draw.below(5, 3, 4))


EXERCISES = (
    Exercise(
        name="multi-query attention",
        of="model.attend",
        task="Write attention with fewer key-value heads than query heads, rotary positions and a KV cache.",
        hints=(
            (
                "Apply split_heads to each: q has more heads of size dim than k and v. grouped_attention "
                "accepts that."
            ),
            "Positions are `first`, `first` + 1, ... in float32 or wider. Rotate q and k, but not v.",
            "Write k and v into kv at first : first + tokens, then attend to kv up to first + tokens.",
        ),
        tries=of_heads,
    ),
    Exercise(
        name="parallel block",
        of="model.ParallelBlock.forward",
        task="Write attention and SwiGLU in parallel, with one norm, one input matrix and one output matrix.",
        hints=(
            "Split the output of self.read into q, k, v, gate and up by self.widths.",
            "SwiGLU is silu(gate) · up.",
            "Concatenate the outputs of attention and SwiGLU, in this order, apply self.write, and add x.",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="loss",
        of="model.PaLM.loss",
        task="Compute the mean loss in nats per token, plus section 5's extra loss that keeps log Z near 0.",
        hints=(
            "The logits after token i predict token i + 1.",
            "log Z is the logsumexp of a token's logits.",
            "Add 1e-4 times the mean of log² Z.",
        ),
        tries=of_losses,
    ),
)
