"""The rival: topics fitted by expectation maximisation (EM), without a network and without masks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Topics(nn.Module):
    """A mixture of unigram models (Nigam and others 2000). Each text has one topic.

    corpus  texts, as word ids below `vocab`; in `forward`, the id `vocab` is the mask
    count   number of topics
    added   pseudocount of each word in each topic
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
        self.register_buffer("words", texts.new_empty(count, vocab))
        self.register_buffer("shares", texts.new_empty(count))
        for _ in range(steps):
            self.words = F.normalize(topic.T @ texts + added, p=1, dim=1)
            self.shares = F.normalize(topic.sum(0) + 1, p=1, dim=0)
            topic = self.topic_of(texts)

    def topic_of(self, counts: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch topics"]:
        """The posterior of the topics, given how often each word occurs in a text."""
        return (counts @ self.words.log().T + self.shares.log()).softmax(-1)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the original words, each predicted from the other words of its text.

        A chosen word is as likely to stay as to be replaced by a random word, so the visible word is more
        likely than others to be the original.
        """
        seen = F.one_hot(ids, self.vocab + 1)[..., : self.vocab].to(self.words)
        others = seen.sum(1, keepdim=True) - seen
        stays = torch.where((ids < self.vocab)[..., None], seen + 1 / self.vocab, 1.0)
        return (self.topic_of(others) @ self.words).log() + stays.log()
