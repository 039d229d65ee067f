"""Times pre-training and decoding with a KV cache, against a model built from torch's functions."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import T5, Cache, buckets

Weights = Mapping[str, Tensor]
State = dict[str, Any]
EPS = 1e-6


def formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Compute scores, softmax and weighted average for one head at a time."""
    heads = []
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head].mT
        if bias is not None:
            scores = scores + bias[0, head]
        heads.append(scores.softmax(-1) @ v[:, head])
    return torch.stack(heads, 1)


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    mask = None if bias is None else bias.expand(len(q), -1, -1, -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


class Torch:
    """The model as functions of its weights."""

    def __init__(self, weights: Weights, heads: int, attend: Any) -> None:
        self.weights, self.heads, self.attend = weights, heads, attend
        self.layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("encoder."))

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], EPS)

    def split(self, x: Tensor, name: str) -> Tensor:
        projected = F.linear(x, self.weights[f"{name}.weight"])
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def bias(self, stack: str, queries: int, keys: int) -> Tensor:
        table = self.weights[f"{stack}_bias.table.weight"]
        at = torch.arange(keys, device=table.device)
        both = stack == "encoder"
        bucket = buckets(at - at[keys - queries :, None], both_sides=both, count=len(table))
        bias = table[bucket].permute(2, 0, 1)[None]
        return bias if both else bias + bias.new_full((queries, keys), -torch.inf).triu(keys - queries + 1)

    def attention(self, x: Tensor, kv: tuple[Tensor, Tensor], bias: Tensor | None, name: str) -> Tensor:
        attended = self.attend(self.split(x, f"{name}.query"), *kv, bias)
        return F.linear(attended.transpose(1, 2).flatten(2), self.weights[f"{name}.output.weight"])

    def feed_forward(self, x: Tensor, name: str) -> Tensor:
        hidden = F.linear(x, self.weights[f"{name}.feed_forward.0.weight"]).relu()
        return F.linear(hidden, self.weights[f"{name}.feed_forward.3.weight"])

    def keys_values(self, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        return self.split(x, f"{name}.key"), self.split(x, f"{name}.value")

    def encode(self, source: Tensor) -> Tensor:
        x = F.embedding(source, self.weights["embedding.weight"])
        bias = self.bias("encoder", x.shape[1], x.shape[1])
        for layer in range(self.layers):
            name = f"encoder.{layer}"
            normed = self.norm(x, f"{name}.norms.0")
            kv = self.keys_values(normed, f"{name}.attention")
            x = x + self.attention(normed, kv, bias, f"{name}.attention")
            x = x + self.feed_forward(self.norm(x, f"{name}.norms.1"), name)
        return self.norm(x, "encoder_norm")

    def read(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the source for each decoder layer."""
        return [self.keys_values(encoded, f"decoder.{n}.source_attention") for n in range(self.layers)]

    def decode(
        self, written: Tensor, read: list[tuple[Tensor, Tensor]], kept: Tensor | None = None, first: int = 0
    ) -> Tensor:
        x, end = F.embedding(written, self.weights["embedding.weight"]), first + written.shape[1]
        bias = self.bias("decoder", written.shape[1], end)
        for layer in range(self.layers):
            name = f"decoder.{layer}"
            normed = self.norm(x, f"{name}.norms.0")
            k, v = self.keys_values(normed, f"{name}.attention")
            if kept is not None:
                kept[layer, 0, :, :, first:end], kept[layer, 1, :, :, first:end] = k, v
                k, v = kept[layer, :, :, :, :end]
            x = x + self.attention(normed, (k, v), bias, f"{name}.attention")
            normed = self.norm(x, f"{name}.norms.1")
            x = x + self.attention(normed, read[layer], None, f"{name}.source_attention")
            x = x + self.feed_forward(self.norm(x, f"{name}.norms.2"), name)
        x = self.norm(x, "decoder_norm")
        return F.linear(x * x.shape[-1] ** -0.5, self.weights["embedding.weight"])


def loss(weights: Weights, source: Tensor, target: Tensor, *, heads: int, attend: Any) -> Tensor:
    model, written = Torch(weights, heads, attend), F.pad(target[:, :-1], (1, 0))
    logits = model.decode(written, model.read(model.encode(source)))
    return F.cross_entropy(logits.flatten(0, 1), target.flatten())


def anew(weights: Weights, state: State, newest: Tensor, *, heads: int) -> tuple[Tensor, State]:
    """Logits after the newest token, computed by processing the source and all tokens again."""
    model, written = Torch(weights, heads, fused), torch.cat([state["written"], newest], 1)
    logits = model.decode(written, model.read(model.encode(state["source"])))
    return logits[:, -1], {**state, "written": written}


def with_cache(weights: Weights, state: State, newest: Tensor, *, heads: int) -> tuple[Any, ...]:
    """Inputs with a KV cache: keys and values of source and target, with room for two more tokens."""
    model = Torch(weights, heads, fused)
    read = model.read(model.encode(state["source"]))
    batch, length = state["written"].shape
    kept = read[0][0].new_zeros(model.layers, 2, batch, heads, length + 2, read[0][0].shape[-1])
    model.decode(state["written"], read, kept)
    return weights, {"read": read, "kept": kept, "length": length}, newest


def from_cache(weights: Weights, state: State, newest: Tensor, *, heads: int) -> tuple[Tensor, State]:
    model, length = Torch(weights, heads, fused), state["length"]
    logits = model.decode(newest, state["read"], state["kept"], length)
    return logits[:, -1], {**state, "length": length + newest.shape[1]}


def go_on(network: T5, state: State, newest: Tensor) -> tuple[Tensor, State]:
    """Do the same as `from_cache`, with this folder's model and cache."""
    kept, length = state["kept"], state["length"]
    caches = [Cache(kv, layer, length) for kv, layer in zip(state["read"], kept, strict=True)]
    logits = network.go_on(newest, caches)
    return logits[:, -1], {**state, "length": caches[0].length}


def cost(
    batch: int,
    source: int,
    target: int,
    model: int,
    heads: int,
    dim: int,
    hidden: int,
    layers: int,
    vocab: int,
) -> tuple[int, int]:
    """FLOPs of the forward matrix multiplications, with causal attention, and the number of weights."""
    inner = heads * dim
    encoder = source * (4 * model * inner + 2 * model * hidden) + 2 * source**2 * inner
    decoder = target * (6 * model * inner + 2 * model * hidden) + 2 * source * model * inner
    decoder += (target * (target + 1) + 2 * target * source) * inner
    products = layers * (encoder + decoder) + target * vocab * model
    weights = layers * (12 * model * inner + 4 * model * hidden + 5 * model)
    return 2 * batch * products, weights + (vocab + 2) * model + 64 * heads


def drawn_weight(name: str, shape: torch.Size, generator: torch.Generator, *, dim: int) -> Tensor:
    """Random weights that preserve the scale, but are smaller by √dim for queries, as in the model.

    Projections into ReLUs are small, so rounding switches few ReLUs on or off.
    """
    values = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return 1 + 0.1 * values
    small = dim**-0.5 if name.endswith("query.weight") else 0.3 if "feed_forward.0" in name else 1.0
    return small * values / shape[1] ** 0.5


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, model, heads, layers, vocab = bench.pick(
        smoke=(16, 16, 2, 1, 11), quick=(2, 256, 4, 2, 1024), full=(16, 768, 12, 12, 32_128)
    )
    dim, hidden, itemsize = model // heads, 4 * model, bench.dtype.itemsize

    def make() -> T5:
        sizes = {"model": model, "heads": heads, "dim": dim, "hidden": hidden, "layers": layers}
        return T5(vocab, **sizes, dropout=0.0)

    def drawn(g: torch.Generator, rows: int, tokens: int) -> Tensor:
        return torch.randint(vocab, (rows, tokens), generator=g)

    for source, target in bench.pick(smoke=((30, 16),), quick=((54, 12), (217, 47)), full=((434, 93),)):
        flops, weights = cost(batch, source, target, model, heads, dim, hidden, layers, vocab)
        yield Case.of_module(
            make,
            name="spans",
            axes={"source": source, "target": target},
            weight=partial(drawn_weight, dim=dim),
            inputs=lambda g, s=source, t=target: (drawn(g, batch, s), drawn(g, batch, t)),
            variants=(
                Variant(name="head by head", role="naive", call=partial(loss, heads=heads, attend=formula)),
                Variant(name="torch SDPA", role="strong", call=partial(loss, heads=heads, attend=fused)),
                Variant.of_module(make, T5.loss, name="T5", role="paper"),
            ),
            cost=Cost.products(flops, weights * itemsize),
        )
    for source, written in bench.pick(smoke=((6, 4),), quick=((128, 16), (128, 128)), full=((512, 128),)):
        prepare = partial(with_cache, heads=heads)
        inner = heads * dim
        one = layers * (8 * model * inner + 2 * model * hidden + 2 * (written + 1 + source) * inner)
        kept = layers * (8 * model * inner + 2 * model * hidden + 2 * (written + source) * inner)
        yield Case.of_module(
            make,
            name="next token",
            axes={"written": written, "source": source},
            weight=partial(drawn_weight, dim=dim),
            inputs=lambda g, s=source, w=written: (
                {"source": drawn(g, 1, s), "written": drawn(g, 1, w)},
                drawn(g, 1, 1),
            ),
            variants=(
                Variant(name="reading all anew", role="naive", call=partial(anew, heads=heads)),
                Variant(
                    name="torch SDPA and cache",
                    role="strong",
                    call=partial(from_cache, heads=heads),
                    prepare=prepare,
                ),
                Variant.of_module(make, go_on, name="T5 with its cache", role="paper", prepare=prepare),
            ),
            cost={"decode": Cost(flops=2 * (one + vocab * model), bytes=(kept + vocab * model) * itemsize)},
        )
