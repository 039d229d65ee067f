"""Exercises: find the tokens before and after the gist, write the mask, and compress a prompt."""

from collections.abc import Iterator

import torch

from readtrack.plugin import Draw, Exercise, Try

from .model import GistGPT2

GIST = 9


def of_texts(draw: Draw) -> Iterator[Try]:
    yield Try("one gist token", torch.tensor([[1, 2, GIST, 3]]), GIST)
    yield Try("2 gist tokens, and none", torch.tensor([[1, GIST, GIST, 2, 3], [1, 2, 3, 4, 5]]), GIST)
    yield Try("a gist token first, and last", torch.tensor([[GIST, 1, 2], [3, 4, GIST]]), GIST)


def of_prompts(draw: Draw) -> Iterator[Try]:
    yield Try("one gist token", model(), draw.below(4, 1, 2), gists=1, room=1)
    yield Try("2 gist tokens", model(), draw.below(4, 2, 3), gists=2, room=2)


def model() -> GistGPT2:
    return GistGPT2(4, context=6, model=2, heads=1, layers=1, std=0.5)


EXERCISES = (
    Exercise(
        name="sides",
        of="model.sides",
        task="Return masks of the tokens before the first gist token, and of those after the last.",
        hints=(
            (
                "Mark each gist token with 1. The cumulative sum is 0 before the first gist token, and the "
                "reversed cumulative sum is 0 after the last."
            ),
            "Both are all False in a text without a gist token.",
        ),
        tries=of_texts,
    ),
    Exercise(
        name="gist mask",
        of="model.gist_mask",
        task="Write figure 2's attention mask, which is True where a token may attend.",
        hints=(
            "Start with the causal mask. Remove pairs of a query after the gist and a key before it.",
            "Queries are in the second to last dimension, keys in the last. Add a dimension for heads.",
        ),
        tries=of_texts,
    ),
    Exercise(
        name="compress",
        of="model.GistGPT2.compress",
        task="Run a prompt with its gist tokens, and keep only the gist tokens' cache entries.",
        hints=(
            "empty_cache allocates entries for the prompt and the gist tokens. A forward pass fills them.",
            "Cut off the prompt's keys and values, and pad with `room` entries for later tokens.",
            "The new cache's length is the number of gist tokens, and `before` is the length of the prompt.",
        ),
        tries=of_prompts,
        gradients=False,
    ),
)
