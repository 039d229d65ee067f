"""The rival: topics fitted by expectation maximisation (EM), without a network and without masks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Topics(nn.Module):
    """A mixture of unigram models (Nigam and others 2000): each text has one topic, each topic its words.

    corpus  texts of words below `vocab`; a larger id is a mask
    count   number of topics
    added   to the number of times that a topic has a word
    """

    words: Tensor
    shares: Tensor

    def __init__(
        self,
        corpus: Int[Tensor, "texts tokens"],
        vocab: int,
        count: int,
        generator: torch.Generator,
        *,
        added: float = 0.1,
        steps: int = 40,
    ) -> None:
        super().__init__()
        self.vocab = vocab
        texts = F.one_hot(corpus, vocab).sum(1).float()
        topic = torch.rand(len(corpus), count, generator=generator).to(texts)
        topic /= topic.sum(1, keepdim=True)
        for _ in range(steps):
            self.register_buffer("words", F.normalize(topic.T @ texts + added, p=1, dim=1))
            self.register_buffer("shares", F.normalize(topic.sum(0) + 1, p=1, dim=0))
            topic = self.topic_of(texts)

    def topic_of(self, counts: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch topics"]:
        """The posterior of the topics, given how often a text has each word."""
        return (counts @ self.words.log().T + self.shares.log()).softmax(-1)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the original words, each from the other words of its text.

        Among the chosen words, equal numbers stay and are replaced by a random word, so a visible word is
        more likely.
        """
        seen = F.one_hot(ids, self.vocab + 1)[..., : self.vocab].to(self.words)
        others = seen.sum(1, keepdim=True) - seen
        stays = torch.where((ids < self.vocab)[..., None], seen + 1 / self.vocab, 1.0)
        return (self.topic_of(others) @ self.words).log() + stays.log()
