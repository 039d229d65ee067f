"""Generates texts with a hole that only the text after it determines."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from .model import NAMES

LENGTH, NEUTRAL, LANGUAGES, LETTERS = 18, 8, 8, 4
COLON = NAMES + NEUTRAL  # precedes the hole, so that its position is known
FIRST = COLON + 1  # the first letter of the languages
VOCAB = FIRST + LANGUAGES * LETTERS
HOLE, LAST = 3, 4  # letters in the hole, and at least after it in the next language


def texts_of(
    count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, " count"], Int[Tensor, " count"]]:
    """Texts, the start of each hole, and its language. The text after the hole is in the next language."""
    begins = torch.randint(2, LENGTH - HOLE - LAST + 1, (count,), generator=generator)
    language = torch.randint(LANGUAGES, (count,), generator=generator)
    neutral = torch.randint(NEUTRAL, (count, LENGTH), generator=generator)
    letters = torch.randint(LETTERS, (count, LENGTH), generator=generator)
    place = torch.arange(LENGTH)
    behind = (place >= begins[:, None] + HOLE).long()
    letters = FIRST + (language[:, None] + behind) % LANGUAGES * LETTERS + letters
    texts = torch.where(place < begins[:, None], NAMES + neutral, letters)
    return texts.scatter(1, begins[:, None] - 1, COLON), begins, language


def least_loss() -> float:
    """Entropy of the texts in nats per letter, without the first: the lowest possible loss.

    Each letter but the colon is drawn from 8 or from 4. The colon gives the start of the hole once, and the
    letter after it the language. The language that follows is then known.
    """
    places = torch.arange(2, LENGTH - HOLE - LAST + 1).double()
    drawn = (places - 2) * math.log(NEUTRAL) + (LENGTH - places) * math.log(LETTERS)
    return (drawn.mean().item() + math.log(len(places) * LANGUAGES)) / (LENGTH - 1)


def spelled(tokens: list[int]) -> str:
    """Names as ?, neutral letters as dots, the colon as itself, a letter of language 3 as d."""
    signs = "?" * NAMES + "." * NEUTRAL + ":"
    return "".join(signs[t] if t < FIRST else "abcdefgh"[(t - FIRST) // LETTERS] for t in tokens)
