"""Texts with a hole that only what follows it tells how to fill."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from .model import NAMES

LENGTH, NEUTRAL, LANGUAGES, LETTERS = 18, 8, 8, 4
COLON = NAMES + NEUTRAL  # stands right before the hole: where it begins is no guess
FIRST = COLON + 1  # of the languages' letters
VOCAB = FIRST + LANGUAGES * LETTERS
HOLE, LAST = 3, 4  # letters of the hole; of the next language, at least


def texts_of(
    count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, " count"], Int[Tensor, " count"]]:
    """Texts, where in each the hole begins, and the language in it; what follows is in the one after it."""
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
    """Nats a letter, of all but the first, of a model that knows the law of the texts: their entropy.

    Each letter but the colon is drawn from 8 or from 4; the colon tells once where the hole begins, the
    letter behind it which language it is, and the one that follows then is known.
    """
    places = torch.arange(2, LENGTH - HOLE - LAST + 1).double()
    drawn = (places - 2) * math.log(NEUTRAL) + (LENGTH - places) * math.log(LETTERS)
    return (drawn.mean().item() + math.log(len(places) * LANGUAGES)) / (LENGTH - 1)


def spelled(tokens: list[int]) -> str:
    """A name as ?, neutral letters as dots, the colon, a letter of language 3 as d."""
    signs = "?" * NAMES + "." * NEUTRAL + ":"
    return "".join(signs[t] if t < FIRST else "abcdefgh"[(t - FIRST) // LETTERS] for t in tokens)
