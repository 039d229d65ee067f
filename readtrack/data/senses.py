"""Synthetic texts with ambiguous words. The words around them determine their meaning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor


@dataclass(frozen=True)
class Senses:
    """Topics that share words: each topic has some of the words, all equally likely.

    A word's meaning is the topic of its text. So a single word gives little information and all words
    together nearly determine the topic; words before and after are equally informative, and their order is
    irrelevant.
    """

    own: Int64[Tensor, "topics owned"]  # the words of each topic
    words: int  # vocabulary size

    def draw(
        self, count: int, length: int, generator: Generator
    ) -> tuple[Int64[Tensor, "count length"], Int64[Tensor, " count"]]:
        """`count` texts, each with one topic drawn uniformly, and these topics."""
        topics, owned = self.own.shape
        topic = torch.randint(topics, (count,), generator=generator)
        return self.own[topic[:, None], torch.randint(owned, (count, length), generator=generator)], topic

    def posterior(self, ids: Int64[Tensor, "count length"]) -> Float[Tensor, "count length topics"]:
        """The exact posterior of the topics after each word, from left to right."""
        has = torch.zeros(len(self.own), self.words).scatter_(1, self.own, 1.0)
        likely = has[:, ids].cumprod(2).permute(1, 2, 0)
        return likely / likely.sum(2, keepdim=True)


def senses(generator: Generator, *, words: int = 48, topics: int = 12, owned: int = 16) -> Senses:
    """Draws each topic's words at random. On average a word is in `topics` · `owned` / `words` topics."""
    rows = [torch.randperm(words, generator=generator)[:owned] for _ in range(topics)]
    return Senses(torch.stack(rows), words)
