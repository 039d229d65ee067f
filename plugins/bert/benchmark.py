"""Times a pre-training step on masked words."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from ..gpt.benchmark import blocks, head_by_head
from .model import BERT, Masked, MaskedModel

Weights = Mapping[str, Tensor]
EPS = 1e-12


def masked_loss(
    weights: Weights,
    read: Tensor,
    chosen: Tensor,
    original: Tensor,
    *,
    heads: int,
    attend: Callable[..., Tensor],
    everywhere: bool,
) -> Tensor:
    """Mean loss of the chosen tokens, written with torch's functions.

    everywhere  whether to compute the logits of all tokens and mask the loss, or only those of chosen tokens
    """

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPS)

    embedding = weights["bert.tokens.weight"]
    x = F.embedding(read, embedding) + weights["bert.positions.weight"][: read.shape[1]]
    x = norm(x + weights["bert.segments.weight"][0], "bert.norm")
    x = blocks(weights, x, "bert.blocks.", heads=heads, attend=attend, gelu="none", eps=EPS)
    if not everywhere:
        x, original = x[chosen], original[chosen]
    hidden = F.gelu(F.linear(x, weights["head.dense.weight"], weights["head.dense.bias"]))
    logits = F.linear(norm(hidden, "head.norm"), embedding, weights["head.bias"])
    if everywhere:
        losses = F.cross_entropy(logits.flatten(0, 1), original.flatten(), reduction="none")
        return (losses * chosen.flatten()).sum() / chosen.sum()
    return F.cross_entropy(logits, original)


def cost(
    batch: int, tokens: int, chosen: int, model: int, layers: int, vocab: int, itemsize: int
) -> dict[str, Cost]:
    """FLOPs of the matrix multiplications, with logits of chosen tokens only, and bytes of the weights."""
    products = layers * (12 * tokens * model**2 + 2 * tokens**2 * model) * batch
    products += chosen * (model**2 + vocab * model)
    weights = layers * (12 * model**2 + 13 * model) + (vocab + tokens + 1) * model
    weights += 2 * model**2 + 6 * model + vocab
    return Cost.products(2 * products, weights * itemsize)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    batch, model, heads, layers, vocab = bench.pick(
        smoke=(2, 8, 2, 2, 11), quick=(8, 256, 4, 2, 2048), full=(32, 768, 12, 12, 30_522)
    )
    for tokens in bench.pick(smoke=(7,), quick=(32, 128), full=(128, 512)):
        count = max(round(0.15 * tokens), 1)  # chosen tokens per text (in training their number varies)

        def make(tokens: int = tokens) -> MaskedModel:
            bert = BERT(vocab, context=tokens, model=model, heads=heads, layers=layers, dropout=0.0)
            return MaskedModel(bert)

        def drawn(g: torch.Generator, tokens: int = tokens, count: int = count) -> tuple[Tensor, ...]:
            original = torch.randint(vocab, (batch, tokens), generator=g)
            chosen = torch.rand(batch, tokens, generator=g).argsort(1) < count
            return original.masked_fill(chosen, vocab - 1), chosen, original

        torchs = partial(masked_loss, heads=heads)
        yield Case.of_module(
            make,
            name="masked words",
            axes={"tokens": tokens},
            inputs=drawn,
            variants=(
                Variant(
                    name="head by head, all read out",
                    role="naive",
                    call=partial(torchs, attend=head_by_head, everywhere=True),
                ),
                Variant(
                    name="torch SDPA",
                    role="strong",
                    call=partial(torchs, attend=F.scaled_dot_product_attention, everywhere=False),
                ),
                Variant.of_module(
                    make,
                    lambda module, *parts: module.masked_loss(Masked(*parts)),
                    name="BERT",
                    role="paper",
                ),
            ),
            cost=cost(batch, tokens, batch * count, model, layers, vocab, bench.dtype.itemsize),
        )
