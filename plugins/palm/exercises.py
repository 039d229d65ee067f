"""Exercises: attention with one head of keys and values and a cache, the block, and the loss."""

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
    yield Try("one token to foretell", PaLM(3, model=2, heads=1, layers=1, dim=2), draw.below(3, 1, 2))
    yield Try("3 texts", PaLM(5, model=4, heads=2, layers=2, dim=2), draw.below(5, 3, 4))


EXERCISES = (
    Exercise(
        name="multi-query attention",
        of="model.attend",
        task="Many heads of queries, fewer of keys and values, rotated by position; earlier ones from `kv`.",
        hints=(
            "split_heads each: q has more heads of width dim than k and v. grouped_attention takes them so.",
            "Positions are first, first + 1, ... (float32 at least); q and k are rotated, v is not.",
            "Write k and v into kv at first : first + tokens, then attend to kv up to there.",
        ),
        tries=of_heads,
    ),
    Exercise(
        name="parallel block",
        of="model.ParallelBlock.forward",
        task="One norm, one matrix that attention and SwiGLU read from, one that both write through.",
        hints=(
            "split what self.read gives into q, k, v, gate and up: self.widths.",
            "SwiGLU is silu(gate) · up.",
            "What heads and SwiGLU give, side by side and in this order, goes through self.write; add x.",
        ),
        tries=of_blocks,
    ),
    Exercise(
        name="loss",
        of="model.PaLM.loss",
        task="Mean nats a token, and section 5's auxiliary loss that keeps the softmax's Z near 1.",
        hints=(
            "The logits after token i foretell token i + 1.",
            "log Z is the logsumexp of a token's logits.",
            "Add 1e-4 times the mean of log² Z.",
        ),
        tries=of_losses,
    ),
)
