"""Generates texts with a gap that can only be filled with the help of the text after it."""

import math

import torch
from jaxtyping import Int
from torch import Tensor

from .model import NAMES

LENGTH, NEUTRAL, LANGUAGES, LETTERS = 18, 8, 8, 4
COLON = NAMES + NEUTRAL  # precedes the gap, so that the model knows its position
FIRST = COLON + 1  # the first letter of the first language
VOCAB = FIRST + LANGUAGES * LETTERS
HOLE, LAST = 3, 4  # letters in the gap, and minimum number of letters after it


def texts_of(
    count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, " count"], Int[Tensor, " count"]]:
    """Returns texts, the start of each gap, and the gap's language. The text after the gap is in the next
    language."""
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
    """A lower bound on the loss: the entropy of the texts in nats per letter, without the first letters.

    Each letter except the colon is drawn from 8 neutral letters or from a language's 4. The colon reveals the
    start of the gap. The letter after the colon reveals the language, which determines the next language.
    """
    places = torch.arange(2, LENGTH - HOLE - LAST + 1).double()
    drawn = (places - 2) * math.log(NEUTRAL) + (LENGTH - places) * math.log(LETTERS)
    return (drawn.mean().item() + math.log(len(places) * LANGUAGES)) / (LENGTH - 1)


def spelled(tokens: list[int]) -> str:
    """Writes special tokens as ?, neutral letters as dots, the colon as :, and letters of language 3 as d."""
    signs = "?" * NAMES + "." * NEUTRAL + ":"
    return "".join(signs[t] if t < FIRST else "abcdefgh"[(t - FIRST) // LETTERS] for t in tokens)
