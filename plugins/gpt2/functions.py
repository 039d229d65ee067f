"""The same model out of torch's functions: what the benchmark compares with."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("weight", "bias")


def head_by_head(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Each head by itself, its scores masked as the released code does it: those not allowed lose 10^10."""
    found = []
    for query, key, value in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if causal:
            allowed = torch.ones_like(scores).tril()
            scores = scores * allowed - 1e10 * (1 - allowed)
        shares = (scores - scores.amax(-1, keepdim=True)).exp()
        found.append(shares / shares.sum(-1, keepdim=True) @ value)
    return torch.stack(found, 1)


def fused(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class ByFunctions:
    """Queries, keys and values by one product, and any attention.

    room  above 0: reads a sequence of up to so many tokens in parts, with a cache that has its whole length
          from the beginning
    """

    def __init__(
        self, weights: Mapping[str, Tensor], *, heads: int, attend: Callable[..., Tensor], room: int = 0
    ) -> None:
        self.weights, self.heads, self.attend = weights, heads, attend
        layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        parts = ("query", "key", "value")
        self.packed = [
            [torch.cat([weights[f"blocks.{i}.attention.{part}.{kind}"] for part in parts]) for kind in KINDS]
            for i in range(layers)
        ]
        self.seen, self.room, self.cache = 0, room, []

    def __call__(self, ids: Tensor) -> Tensor:
        w, count = self.weights, ids.shape[1]
        x = F.embedding(ids, w["words.weight"]) + w["places.weight"][self.seen : self.seen + count]
        for layer in range(len(self.packed)):
            name = f"blocks.{layer}"
            x = x + self.look(layer, self.norm(x, f"{name}.norms.0"))
            hidden = self.linear(self.norm(x, f"{name}.norms.1"), f"{name}.widen")
            x = x + self.linear(F.gelu(hidden, approximate="tanh"), f"{name}.narrow")
        self.seen += count
        return F.linear(self.norm(x, "norm"), w["words.weight"])

    def look(self, layer: int, x: Tensor) -> Tensor:
        projected = F.linear(x, *self.packed[layer]).unflatten(-1, (3, self.heads, -1))
        q, k, v = projected.permute(2, 0, 3, 1, 4)
        if self.room:
            if layer == len(self.cache):
                self.cache.append(k.new_empty(2, *k.shape[:2], self.room, k.shape[-1]))
            kept, end = self.cache[layer], self.seen + x.shape[1]
            kept[0, :, :, self.seen : end], kept[1, :, :, self.seen : end] = k, v
            k, v = kept[:, :, :, :end]
        found = self.attend(q, k, v, causal=x.shape[1] > 1)
        return self.linear(found.transpose(1, 2).flatten(2), f"blocks.{layer}.attention.output")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, *(self.weights[f"{name}.{kind}"] for kind in KINDS))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *(self.weights[f"{name}.{kind}"] for kind in KINDS))
