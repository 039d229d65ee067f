"""Implements attention within buckets of similar vectors, reversible layers, and a language model.

Dimensions: batch, heads, tokens, dim (of a head), model (hidden size), rounds (of hashing), chunks (of the
sorted tokens), width (tokens of a chunk), vocab.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from ..attention import merge_heads, split_heads
from ..layernorm import LayerNorm

Vectors = Float[Tensor, "batch heads tokens dim"]
Buckets = Int[Tensor, "batch heads rounds tokens"]
ITSELF = (
    -1e5
)  # score of a token with itself, so low that a token attends to itself only if it sees no other token


def hashed(x: Vectors, rotations: Float[Tensor, "heads dim rounds half"]) -> Buckets:
    """Section 2: the bucket of each vector in each round, out of 2 · `half` buckets.

    Computes in float32 or wider, because rounding to half precision would change many buckets.
    """
    precision = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        rotated = torch.einsum("bhtd,hdrn->bhrtn", x.to(precision), rotations.to(precision))
    return torch.cat((rotated, -rotated), -1).argmax(-1)  # h(x) = argmax([x R; -x R])


def hashed_twice(
    x: Vectors,
    first: Float[Tensor, "heads dim rounds half1"],
    second: Float[Tensor, "heads dim rounds half2"],
) -> Buckets:
    """The bucket of each vector out of 4 · half1 · half2: its pair of buckets under two rotations.

    With a single rotation, hashing takes quadratic time if the number of buckets grows with that of tokens.
    The released code factorises it in this way.
    """
    return hashed(x, first) + 2 * first.shape[-1] * hashed(x, second)


def unit_length(x: Vectors) -> Vectors:
    """The keys, which are the queries scaled to length 1."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6 * x.shape[-1])


def lsh_attention(
    qk: Vectors,
    v: Float[Tensor, "batch heads tokens values"],
    buckets: Buckets,
    *,
    width: int,
    causal: bool = True,
) -> Float[Tensor, "batch heads tokens values"]:
    """Section 2: tokens are sorted by bucket and position, and attend to their own chunk and the previous
    one.

    A pair that meets in several rounds counts once, so the result is attention over all pairs that meet in
    any round. Scores are dot products of queries and keys of length 1, without 1 / √dim. In the released
    code, keys have length √dim, which cancels this factor.

    width  tokens per chunk; the first chunk also sees the last chunk. Raises ValueError if the number of
           tokens is not a multiple of `width`
    """
    tokens, rounds = qk.shape[2], buckets.shape[2]
    if tokens % width:
        raise ValueError(f"{tokens} tokens cannot be cut into chunks of {width}")
    at = torch.arange(tokens, device=qk.device)
    order = (buckets * tokens + at).argsort(
        -1
    )  # batch heads rounds tokens: the token at each sorted position
    chunk = torch.empty_like(order).scatter_(-1, order, (at // width).expand_as(order))

    def sort(x: Tensor) -> Tensor:
        """(batch, heads, tokens, dim) to (batch, heads, rounds, chunks, width, dim)."""
        index = order[..., None].expand(*order.shape, x.shape[-1])
        return x[:, :, None].expand(-1, -1, rounds, -1, -1).gather(3, index).unflatten(3, (-1, width))

    def with_previous(x: Tensor) -> Tensor:
        return torch.cat((x.roll(1, 3), x), 4)

    q, keys, values = sort(qk), with_previous(sort(unit_length(qk))), with_previous(sort(v))
    here = order.unflatten(-1, (-1, width))
    there = with_previous(here)
    scores = q @ keys.mT
    same = here[..., :, None] == there[..., None, :]
    scores = scores.masked_fill(same, ITSELF)
    if causal:
        scores = scores.masked_fill(here[..., :, None] < there[..., None, :], -torch.inf)
    if tokens == width:  # The only chunk is also its own previous chunk.
        twice = torch.arange(2 * width, device=qk.device) < width
        scores = scores.masked_fill(twice, -torch.inf)
    scores = scores - meetings(chunk, here, there, tokens // width).to(scores.dtype).log()
    # The result of each round, and the round's weight, the logarithm of its sum of exponentials.
    found = scores.softmax(-1) @ values
    weight = scores.logsumexp(-1)
    back = order.argsort(-1)
    found = found.flatten(3, 4).gather(3, back[..., None].expand(*back.shape, v.shape[-1]))
    weight = weight.flatten(3, 4).gather(3, back)
    return (weight.softmax(2)[..., None] * found).sum(2)


def meetings(chunk: Buckets, here: Tensor, there: Tensor, chunks: int) -> Int[Tensor, "..."]:
    """For each pair, the number of rounds in which the key is in the query's chunk or the previous chunk."""
    total = torch.zeros((), dtype=torch.long, device=chunk.device)
    for of_round in chunk.unbind(2):
        expanded = of_round[:, :, None].expand(-1, -1, chunk.shape[2], -1)
        mine = expanded.gather(3, here.flatten(3)).view_as(here)[..., :, None]
        theirs = expanded.gather(3, there.flatten(3)).view_as(there)[..., None, :]
        total = total + ((theirs == mine) | (theirs == (mine - 1) % chunks))
    return total


class LSHAttention(nn.Module):
    """Attention within buckets. One projection gives queries and keys.

    buckets  number of buckets in each round, an even number
    """

    def __init__(self, model: int, heads: int, *, buckets: int, rounds: int, width: int) -> None:
        super().__init__()
        self.heads, self.buckets, self.rounds, self.width = heads, buckets, rounds, width
        self.query_key = nn.Linear(model, model, bias=False)
        self.value = nn.Linear(model, model, bias=False)
        self.output = nn.Linear(model, model, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        rotations: Float[Tensor, "heads dim rounds half"] | Buckets,
    ) -> Float[Tensor, "batch tokens model"]:
        """`rotations` are random rotations, or precomputed buckets."""
        qk, v = split_heads(self.query_key(x), self.heads), split_heads(self.value(x), self.heads)
        buckets = rotations
        if rotations.is_floating_point():
            with torch.no_grad():
                buckets = hashed(qk, rotations)
        return self.output(merge_heads(lsh_attention(qk, v, buckets, width=self.width)))

    def draw(self, generator: torch.Generator | None = None) -> Float[Tensor, "heads dim rounds half"]:
        """Random rotations for one forward pass and its backward pass."""
        weight = self.query_key.weight
        shape = self.heads, len(weight) // self.heads, self.rounds, self.buckets // 2
        return torch.randn(shape, generator=generator).to(weight)


class Layer(nn.Module):
    """Section 3: the two functions of a reversible layer, each of which normalises its input."""

    def __init__(self, model: int, heads: int, hidden: int, **hashing: int) -> None:
        super().__init__()
        self.attention = LSHAttention(model, heads, **hashing)
        self.feed_forward = nn.Sequential(nn.Linear(model, hidden), nn.ReLU(), nn.Linear(hidden, model))
        self.norms = nn.ModuleList(LayerNorm(model, eps=1e-12) for _ in range(2))

    def forward(self, x: Tensor, rotations: Tensor | None = None) -> Tensor:
        """The residual for one half of the stream: attention if `rotations` is given, feed-forward if not.

        The stream is in float32 or wider. In lower precision, the inputs cannot be recomputed from the
        outputs.
        """
        x = x.to(self.norms[0].weight.dtype)
        if rotations is None:
            return self.feed_forward(self.norms[1](x))
        return self.attention(self.norms[0](x), rotations)


Half = Callable[
    [Sequence[Tensor], Tensor], Tensor
]  # maps a layer's weights and half of the stream to a residual


class _Reversible(torch.autograd.Function):
    """Stores only the last layer's outputs, and recomputes the other activations in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        halves: Sequence[tuple[Half, Half]],
        counts: Sequence[int],
        x1: Tensor,
        x2: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.halves, ctx.counts = halves, counts
        device = x1.device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        for (f, g), own in zip(halves, _split(weights, counts), strict=True):
            x1 = x1 + f(own, x2)
            x2 = x2 + g(own, x1)
        ctx.save_for_backward(x1, x2, *weights)
        return x1, x2

    @staticmethod
    def backward(ctx: Any, d1: Tensor, d2: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("reversible layers have no second derivative: use Reformer(stored=True)")
        y1, y2, *weights = ctx.saved_tensors
        found: list[Tensor | None] = []
        layers = list(zip(ctx.halves, _split(weights, ctx.counts), strict=True))
        for (f, g), own in reversed(layers):
            second, (from_y1, *of_g) = _derived(ctx, g, own, y1, d2)
            y2 = y2 - second
            d1 = d1 + from_y1
            first, (from_y2, *of_f) = _derived(ctx, f, own, y2, d1)
            y1 = y1 - first
            d2 = d2 + from_y2
            found = [_sum(a, b) for a, b in zip(of_f, of_g, strict=True)] + found
        return None, None, d1, d2, *found


def _split(weights: Sequence[Tensor], counts: Sequence[int]) -> list[Sequence[Tensor]]:
    ends = [sum(counts[: index + 1]) for index in range(len(counts))]
    return [weights[end - count : end] for end, count in zip(ends, counts, strict=True)]


def _derived(
    ctx: Any, half: Half, own: Sequence[Tensor], x: Tensor, d: Tensor
) -> tuple[Tensor, Sequence[Tensor | None]]:
    """Recompute the residual of one half, with the gradients of `x` and of the weights."""
    device, dtype, enabled = ctx.autocast
    with torch.enable_grad(), torch.autocast(device, dtype=dtype, enabled=enabled):
        leaves = [x.detach().requires_grad_(), *(weight.detach().requires_grad_() for weight in own)]
        result = half(leaves[1:], leaves[0])
    return result.detach(), torch.autograd.grad(result, leaves, d.to(result.dtype), allow_unused=True)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


class Reformer(nn.Module):
    """Sections 2 and 3: a decoder of reversible layers with hashed attention.

    The defaults give the paper's enwik8 model: 3 layers of hidden size 1,024 and 64K tokens.
    Positions are learned vectors. We leave out the paper's axial positions and chunked feed-forward layers.

    stored  False stores only the activations of one layer at a time. True stores all activations, which
            makes second derivatives possible
    """

    def __init__(
        self,
        vocab: int = 258,
        *,
        context: int = 65_536,
        model: int = 1024,
        heads: int = 8,
        hidden: int = 4096,
        layers: int = 3,
        buckets: int = 512,
        rounds: int = 4,
        width: int = 128,
        stored: bool = False,
    ) -> None:
        super().__init__()
        hashing = {"buckets": buckets, "rounds": rounds, "width": width}
        self.tokens = nn.Embedding(vocab, model)
        self.positions = nn.Embedding(context, model)
        self.layers = nn.ModuleList(Layer(model, heads, hidden, **hashing) for _ in range(layers))
        self.norm = LayerNorm(2 * model, eps=1e-12)
        self.output = nn.Linear(2 * model, vocab)
        self.stored = stored
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=0.02)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)

    def forward(
        self, ids: Int[Tensor, "batch tokens"], rotations: Sequence[Tensor] | None = None
    ) -> Float[Tensor, "batch tokens vocab"]:
        """Logits of the next token after each of `ids`. Draws each layer's rotations if none are given."""
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        rotations = rotations or [layer.attention.draw() for layer in self.layers]
        pair = run_layers(list(self.layers), rotations, x, x, stored=self.stored)
        return self.output(self.norm(torch.cat(pair, -1).to(x.dtype)))

    def loss(
        self, ids: Int[Tensor, "batch one_more"], rotations: Sequence[Tensor] | None = None
    ) -> Float[Tensor, ""]:
        """Mean loss in nats per token, over all tokens but the first."""
        return F.cross_entropy(self(ids[:, :-1], rotations).flatten(0, 1), ids[:, 1:].flatten())


def run_layers(
    layers: Sequence[Layer], rotations: Sequence[Tensor], x1: Tensor, x2: Tensor, *, stored: bool
) -> tuple[Tensor, Tensor]:
    """Equation 9 for every layer: y1 = x1 + attention(x2), y2 = x2 + feed-forward(y1)."""
    x1, x2 = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (x1, x2))
    if stored:
        for layer, r in zip(layers, rotations, strict=True):
            x1 = x1 + layer(x2, r)
            x2 = x2 + layer(x1)
        return x1, x2
    # The weights are arguments, because `torch.func.functional_call` may use other weights in the backward
    # pass.
    weights = [tuple(layer.parameters()) for layer in layers]
    halves = [_halves(layer, r) for layer, r in zip(layers, rotations, strict=True)]
    flat = [weight for own in weights for weight in own]
    return _Reversible.apply(halves, [len(own) for own in weights], x1, x2, *flat)


def _halves(layer: Layer, rotations: Tensor) -> tuple[Half, Half]:
    names = [name for name, _ in layer.named_parameters()]

    def call(own: Sequence[Tensor], x: Tensor, *more: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, own, strict=True)), (x, *more))

    return lambda own, x: call(own, x, rotations), call


def inverse(
    layers: Sequence[Layer], rotations: Sequence[Tensor], y1: Tensor, y2: Tensor
) -> tuple[Tensor, Tensor]:
    """Recompute the inputs of the layers from their outputs."""
    for layer, r in zip(reversed(layers), reversed(rotations), strict=True):
        y2 = y2 - layer(y1)
        y1 = y1 - layer(y2, r)
    return y1, y2
