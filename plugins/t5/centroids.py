"""The rival: nearest class centroids of word-count vectors, without a network."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .tasks import VOCAB, Pairs


def co_occurrences(ids: Int[Tensor, "count length"]) -> Float[Tensor, "vocab vocab"]:
    """Counts how often each pair of words occurs in the same text, at two different positions."""
    counts = F.one_hot(ids, VOCAB).sum(1).float()
    return counts.T @ counts - counts.sum(0).diag()


class Centroids(nn.Module):
    """Returns the answer whose examples have the nearest mean vector. A text's vector is the mean of its
    words' vectors.

    together  co-occurrences in the pre-training texts; a word's vector is its row, divided by the row's sum
    examples  texts with answers of one token
    """

    def __init__(self, together: Float[Tensor, "vocab vocab"], examples: Pairs) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(F.normalize(together, p=1, dim=1))
        source, target = (part.to(together.device) for part in examples)
        self.answers, which = target[:, 0].unique(return_inverse=True)
        shares = F.normalize(F.one_hot(which).T.to(together), p=1, dim=1)
        self.means = shares @ self.vectors(source)

    def vectors(self, source: Int[Tensor, "batch source"]) -> Float[Tensor, "batch vocab"]:
        found: Tensor = self.embedding(source).mean(1)
        return found

    def generate(self, source: Int[Tensor, "batch source"], length: int) -> Int[Tensor, "batch 1"]:
        """The answers, as `T5.generate` returns them."""
        return self.answers[torch.cdist(self.vectors(source), self.means).argmin(1)][:, None]
