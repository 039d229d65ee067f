"""Implements an encoder and a decoder of stacked LSTMs, greedy search, and beam search.

Dimensions: batch, source (words of a source sentence), target (words of a target), vocab, hidden, layers.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..lstm import LSTM

END = 0  # end-of-sentence token, and the decoder's first input
State = list[tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]]  # one pair (h, c) per layer


class Stack(nn.Module):
    """Maps words to hidden states: an embedding and stacked LSTMs."""

    def __init__(self, vocab: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(LSTM(hidden, hidden) for _ in range(layers))

    def forward(
        self, words: Int[Tensor, "batch time"], last: State | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """`last` is the initial state of every layer."""
        x, states = self.embed(words), []
        for i, layer in enumerate(self.layers):
            x, state = layer(x, last[i] if last else None)
            states.append(state)
        return x, states


class Seq2Seq(nn.Module):
    """An encoder whose last states initialise the decoder. There is no other connection.

    The defaults are the paper's, whose vocabularies have 160,000 and 80,000 words.

    reverse  read the source backwards (section 3.3). Sentences in a batch must have the same length. If they
             do not, reverse them before padding
    """

    def __init__(
        self,
        source_vocab: int = 160_000,
        target_vocab: int = 80_000,
        *,
        hidden: int = 1000,
        layers: int = 4,
        reverse: bool = True,
    ) -> None:
        super().__init__()
        self.reverse = reverse
        self.reader = Stack(source_vocab, hidden, layers)
        self.writer = Stack(target_vocab, hidden, layers)
        self.readout = nn.Linear(hidden, target_vocab)

    def read(self, source: Int[Tensor, "batch source"]) -> State:
        """The last states of all layers: a fixed-size representation of the sentence."""
        return self.reader(self.ordered(source))[1]

    def ordered(self, source: Int[Tensor, "batch source"]) -> Int[Tensor, "batch source"]:
        return source.flip(1) if self.reverse else source

    def forward(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target vocab"]:
        """Equation 1: logits of each word of `target` (which ends with END), given the previous words."""
        before = torch.cat((torch.full_like(target[:, :1], END), target[:, :-1]), 1)
        states, _ = self.writer(before, self.read(source))
        return self.readout(states)

    def loss(
        self, source: Int[Tensor, "batch source"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, ""]:
        """Mean loss in nats per word."""
        return F.cross_entropy(self(source, target).flatten(0, 1), target.flatten())


class Sentence(NamedTuple):
    """words: the words before END; log_probability: the log-probability of the words and END"""

    words: tuple[int, ...]
    log_probability: float


@torch.no_grad()
def beam_search(
    model: Seq2Seq, source: Int[Tensor, " source"], *, beam: int = 12, limit: int = 50
) -> list[Sentence]:
    """Section 3.2: left-to-right beam search. The most likely sentences come first.

    Each step keeps the `beam` most likely prefixes. A prefix that is extended by END is complete and leaves
    the beam. Scores are not normalised by length. Prefixes without END after `limit` words are dropped.
    """
    state = model.read(source[None])
    words = source.new_full((1, 1), END)
    beginnings: list[tuple[int, ...]] = [()]
    scores = torch.zeros(1, dtype=model.readout.weight.dtype, device=source.device)
    done: list[Sentence] = []
    for _ in range(limit + 1):
        states, state = model.writer(words, state)
        every = scores[:, None] + model.readout(states[:, -1]).log_softmax(-1)
        vocab = every.shape[1]
        best = every.flatten().topk(min(beam, every.numel()))
        rows, found, kept = [], [], []
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, word = divmod(place, vocab)
            if word == END:
                done.append(Sentence(beginnings[row], score))
            else:
                rows.append(row)
                found.append(word)
                kept.append(score)
        if not rows or (len(done) >= beam and max(kept) <= sorted(s.log_probability for s in done)[-beam]):
            break
        beginnings = [(*beginnings[row], word) for row, word in zip(rows, found, strict=True)]
        chosen = torch.tensor(rows, device=source.device)
        state = [(h[chosen], c[chosen]) for h, c in state]
        words = torch.tensor(found, device=source.device)[:, None]
        scores = torch.tensor(kept, dtype=scores.dtype, device=source.device)
    return sorted(done, key=lambda sentence: -sentence.log_probability)[:beam]


@torch.no_grad()
def greedy(model: Seq2Seq, source: Int[Tensor, "batch source"], length: int) -> Int[Tensor, "batch {length}"]:
    """Greedy decoding of `length` words, with a carried state. It continues after END."""
    state, word = model.read(source), torch.full_like(source[:, :1], END)
    written = []
    for _ in range(length):
        states, state = model.writer(word, state)
        word = model.readout(states).argmax(-1)
        written.append(word)
    return torch.cat(written, 1)
