"""Implements an n-gram language model."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


class NGrams:
    """An n-gram model with interpolated absolute discounting (Ney, Essen and Kneser 1994).

    pieces    text to count in, each piece a sequence of tokens
    vocab     number of tokens
    order     length of the longest n-gram
    discount  amount subtracted from each count in favour of shorter n-grams
    """

    def __init__(
        self, pieces: Sequence[Int[Tensor, " _"]], vocab: int, order: int, discount: float = 0.75
    ) -> None:
        self.vocab, self.discount = vocab, discount
        self.tables = [
            Table(torch.cat([self.keys(piece, n) for piece in pieces])) for n in range(1, order + 1)
        ]
        # For each n-gram without its last token: the number of occurrences, and the number of different last
        # tokens.
        self.contexts = [Table(table.keys // vocab, table.counts) for table in self.tables]

    def keys(self, ids: Int[Tensor, "*batch tokens"], n: int) -> Int[Tensor, "*batch grams"]:
        """Maps each n-gram to an integer whose remainder modulo `vocab` is the last token."""
        grams, key = ids.unfold(-1, n, 1), 0
        for token in grams.unbind(-1):
            key = key * self.vocab + token
        return key

    def probabilities(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens"]:
        """Probability of each token given the previous tokens. The first tokens have shorter contexts."""
        found = torch.full(ids.shape, 1 / self.vocab, dtype=torch.float64)
        for n, (table, context) in enumerate(zip(self.tables, self.contexts, strict=True), start=1):
            keys = self.keys(ids, n)
            seen, all_seen = table.count(keys), context.count(keys // self.vocab)
            different = context.different(keys // self.vocab)
            longer = ((seen - self.discount).clamp_min(0) + self.discount * different * found[:, n - 1 :]) / (
                all_seen.clamp_min(1)
            )
            found[:, n - 1 :] = torch.where(all_seen > 0, longer, found[:, n - 1 :])
        return found

    def loss(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, ""]:
        """Mean loss in nats per token after the first."""
        return -self.probabilities(ids)[:, 1:].log().mean().float()


class Table:
    """Sorted keys with their counts.

    keys, counts  keys and their counts (default: 1); counts of repeated keys are added up
    """

    def __init__(self, keys: Int[Tensor, " rows"], counts: Int[Tensor, " rows"] | None = None) -> None:
        self.keys, index, times = keys.unique(return_inverse=True, return_counts=True)
        self.times = times
        ones = torch.ones_like(keys) if counts is None else counts
        self.counts = torch.zeros_like(self.keys).index_add_(0, index, ones)

    def find(self, values: Int[Tensor, " keys"], keys: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        place = torch.searchsorted(self.keys, keys).clamp_max(len(self.keys) - 1)
        return torch.where(self.keys[place] == keys, values[place], 0).double()

    def count(self, keys: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return self.find(self.counts, keys)

    def different(self, keys: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Number of rows in which each key occurred."""
        return self.find(self.times, keys)
