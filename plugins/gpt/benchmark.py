"""Times a fine-tuning step of our network and of the same network written with torch's functions."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import GPT, Classifier

Weights = Mapping[str, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def head_by_head(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """Attention in a loop over heads. 10^4 is subtracted from masked scores."""
    heads = []
    for query, key, value in zip(q.unbind(1), k.unbind(1), v.unbind(1), strict=True):
        scores = query @ key.mT / query.shape[-1] ** 0.5
        if causal:
            scores = scores - 1e4 * torch.ones_like(scores).triu(1)
        heads.append(scores.softmax(-1) @ value)
    return torch.stack(heads, 1)


def blocks(
    weights: Weights, x: Tensor, prefix: str, *, heads: int, attend: Attend, gelu: str, eps: float = 1e-5
) -> Tensor:
    """Applies all post-norm blocks whose weights are under `prefix`."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    for layer in range(1 + max(int(n[len(prefix) :].split(".")[0]) for n in weights if n.startswith(prefix))):
        name = f"{prefix}{layer}"
        projected = (linear(x, f"{name}.attention.{part}") for part in ("query", "key", "value"))
        q, k, v = (p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in projected)
        x = norm(
            x + linear(attend(q, k, v).transpose(1, 2).flatten(2), f"{name}.attention.output"),
            f"{name}.norms.0",
        )
        hidden = F.gelu(linear(x, f"{name}.feed_forward.0"), approximate=gelu)
        x = norm(x + linear(hidden, f"{name}.feed_forward.2"), f"{name}.norms.1")
    return x


def tuning_loss(weights: Weights, ids: Tensor, label: Tensor, *, heads: int, attend: Attend) -> Tensor:
    embedding = weights["gpt.tokens.weight"]
    x = F.embedding(ids, embedding) + weights["gpt.positions.weight"][: ids.shape[1]]
    x = blocks(weights, x, "gpt.blocks.", heads=heads, attend=attend, gelu="tanh")
    task = F.cross_entropy(F.linear(x[:, -1], weights["output.weight"], weights["output.bias"]), label)
    read = F.linear(x[:, :-1], embedding).flatten(0, 1)
    return task + 0.5 * F.cross_entropy(read, ids[:, 1:].flatten())


def cost(
    batch: int, tokens: int, model: int, layers: int, vocab: int, classes: int, itemsize: int
) -> dict[str, Cost]:
    """FLOPs of matrix multiplications (attention: unmasked pairs only), and bytes of the weights."""
    pairs = tokens * (tokens + 1) // 2
    products = layers * (12 * tokens * model**2 + 2 * pairs * model)
    products += (tokens - 1) * vocab * model + classes * model
    weights = layers * (12 * model**2 + 13 * model) + (vocab + tokens + classes) * model + classes
    return Cost.products(2 * batch * products, weights * itemsize)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, model, heads, layers, vocab = bench.pick(
        smoke=(2, 8, 2, 2, 11), quick=(8, 256, 4, 2, 512), full=(32, 768, 12, 12, 40_478)
    )
    classes = 3
    sdpa = partial(F.scaled_dot_product_attention, is_causal=True)
    for tokens in bench.pick(smoke=(5,), quick=(32, 128), full=(128, 512)):

        def make(tokens: int = tokens) -> Classifier:
            gpt = GPT(vocab, context=tokens, model=model, heads=heads, layers=layers, dropout=0.0)
            return Classifier(gpt, classes)

        yield Case.of_module(
            make,
            name="fine-tuning step",
            axes={"tokens": tokens},
            inputs=lambda g, tokens=tokens: (
                torch.randint(vocab, (batch, tokens), generator=g),
                torch.randint(classes, (batch,), generator=g),
            ),
            variants=(
                Variant(
                    name="head by head",
                    role="naive",
                    call=partial(tuning_loss, heads=heads, attend=partial(head_by_head, causal=True)),
                ),
                Variant(
                    name="torch SDPA", role="strong", call=partial(tuning_loss, heads=heads, attend=sdpa)
                ),
                Variant.of_module(make, Classifier.loss, name="GPT", role="paper"),
            ),
            cost=cost(batch, tokens, model, layers, vocab, classes, bench.dtype.itemsize),
        )
