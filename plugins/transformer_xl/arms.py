"""Networks with distance biases, without distances, or with absolute positions, a GRU, and segment-wise
reading.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..attention import merge_heads, split_heads
from ..transformer import sines
from .model import Memory, RelativeAttention, TransformerXL

SEGMENT, KEPT = 8, 16  # number of tokens in a segment, and in the memory
WORDS = 48  # vocabulary of the language
MODEL = 64
STD = 0.02 * (512 / MODEL) ** 0.5  # the paper's 0.02 at hidden size 512, scaled to this hidden size


def transformer_xl(change: Callable[[TransformerXL], None] = lambda _: None) -> TransformerXL:
    net = TransformerXL(WORDS, model=MODEL, heads=4, hidden=4 * MODEL, layers=2, std=STD, dropout=0.0)
    change(net)
    return net


class Biased(RelativeAttention):
    """Adds a bias for each head and distance to the scores, which is 0 unless `learned` is True."""

    def __init__(self, model: int, heads: int, *, learned: bool) -> None:
        super().__init__(model, heads)
        del self.position
        self.bias = nn.Parameter(torch.zeros(heads, KEPT + SEGMENT), requires_grad=learned)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        context: Float[Tensor, "batch keys model"],
        distances: Float[Tensor, "keys model"],
        u: Float[Tensor, "heads dim"],
        v: Float[Tensor, "heads dim"],
    ) -> Float[Tensor, "batch tokens model"]:
        projected = self.query(x), self.key(context), self.value(context)
        q, k, values = (split_heads(vectors, self.heads) for vectors in projected)
        place = torch.arange(context.shape[1], device=x.device)
        distance = place[-x.shape[1] :, None] - place
        bias = self.bias[:, distance.clamp(0, KEPT + SEGMENT - 1)]
        scores = (q + u[:, None]) @ k.mT * q.shape[-1] ** -0.5 + bias
        return self.output(merge_heads(scores.masked_fill(distance < 0, -torch.inf).softmax(-1) @ values))


def attend_by(make: Callable[[int, int], RelativeAttention]) -> Callable[[TransformerXL], None]:
    def change(net: TransformerXL) -> None:
        for layer in net.layers:
            layer.attention = make(MODEL, layer.attention.heads)
            for name, weight in layer.attention.named_parameters():
                if name != "bias":
                    nn.init.normal_(weight, std=STD)

    return change


def number_places(net: TransformerXL) -> None:
    """Positions as in the Transformer: sinusoids are added to the input, and attention sees no distances."""
    attend_by(partial(Biased, learned=False))(net)
    net.embedding.register_forward_hook(
        lambda _, ids, x: x * MODEL**0.5 + sines(x.shape[1], MODEL).to(x)  # section 3.4's factor
    )


class Carried(nn.Module):
    """A GRU with the interface of `TransformerXL`. Its memory is each layer's state after the previous
    segment.
    """

    def __init__(self, vocab: int, model: int, *, layers: int) -> None:
        super().__init__()
        self.embedding, self.readout = nn.Embedding(vocab, model), nn.Linear(model, vocab)
        self.gru = nn.GRU(model, model, layers, batch_first=True)

    def loss(
        self, ids: Int[Tensor, "batch one_more"], memory: Sequence[Tensor] = (), *, keep: int = 0
    ) -> tuple[Float[Tensor, "batch tokens"], Memory]:
        """Loss in nats of each token except the first, and the state, unless `keep` is 0."""
        before = memory[0].transpose(0, 1).contiguous() if memory else None
        hidden, state = self.gru(self.embedding(ids[:, :-1]), before)
        nats = F.cross_entropy(self.readout(hidden).mT, ids[:, 1:], reduction="none")
        return nats, [state.detach().transpose(0, 1)] if keep else []


class Reading(NamedTuple):
    """How an arm reads a text.

    tokens  length of a segment
    keep    length of its memory in training
    later   length of its memory in evaluation
    make    makes the network
    mixed   whether each text gets the memory of the next text
    counts  whether the prediction is mixed with a unigram model of the words that a memory would reach
    """

    tokens: int = SEGMENT
    keep: int = 0
    later: int = 0
    make: Callable[[], TransformerXL | Carried] = transformer_xl
    mixed: bool = False
    counts: bool = False


class Outcome(NamedTuple):
    """A network, how it reads a text, and the weight of the unigram cache in its prediction."""

    net: TransformerXL | Carried
    reading: Reading
    share: float = 0.0


class Segments(nn.Module):
    """Reads longer texts in segments of `length` tokens, with a memory of `keep` tokens before each."""

    def __init__(self, network: TransformerXL, length: int, *, keep: int) -> None:
        super().__init__()
        self.network, self.length, self.keep = network, length, keep

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        memory: Memory = []
        logits = []
        for segment in ids.split(self.length, 1):
            found, memory = self.network(segment, memory, keep=self.keep)
            logits.append(found)
        return torch.cat(logits, 1)
