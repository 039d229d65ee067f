"""Implements GPT-2 with locally banded attention in every other layer.

Dimensions: batch, heads, tokens (queries), keys, dim (of a head).
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ..attention import scaled_dot_product_attention
from ..gpt2 import GPT2


def locally_banded(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch heads keys dim"],
    v: Float[Tensor, "batch heads keys dim"],
    *,
    window: int,
    causal: bool = True,
) -> Float[Tensor, "batch heads tokens dim"]:
    """Each token attends to itself and the `window` - 1 tokens before it. The last query is aligned with the
    last key.

    causal  ignored; GPT-2's layers pass it, False for a single newest token
    """
    tokens, keys = q.shape[2], k.shape[2]
    back = torch.arange(keys - tokens, keys, device=q.device)[:, None] - torch.arange(keys, device=q.device)
    return scaled_dot_product_attention(q, k, v, mask=(back >= 0) & (back < window))


class GPT3(GPT2):
    """Section 2.1: GPT-2 with alternating dense and locally banded layers, as in the Sparse Transformer.

    window  number of tokens that a banded layer attends to; the paper does not state it
    """

    def __init__(
        self,
        vocab: int = 50_257,
        *,
        context: int = 2048,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        window: int = 256,
        std: float = 0.02,
    ) -> None:
        super().__init__(vocab, context=context, model=model, heads=heads, layers=layers, std=std)
        for block in list(self.blocks)[1::2]:
            block.attention.attend = partial(locally_banded, window=window)


# Table 2.1, without the sizes whose width is not heads times the head size.
SIZES = {
    "125M": {"model": 768, "heads": 12, "layers": 12},
    "350M": {"model": 1024, "heads": 16, "layers": 24},
    "760M": {"model": 1536, "heads": 16, "layers": 24},
    "2.7B": {"model": 2560, "heads": 32, "layers": 32},
    "6.7B": {"model": 4096, "heads": 32, "layers": 32},
    "175B": {"model": 12_288, "heads": 96, "layers": 96},
}
