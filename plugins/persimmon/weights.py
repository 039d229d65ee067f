"""Renames the released weights of Persimmon, as loaded by `transformers`."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..rope import halves_to_pairs

WHOLE = {
    "model.embed_tokens": "embed",
    "model.final_layernorm": "norm",
    "lm_head": "readout",
}
LAYER = {
    "self_attn.query_key_value": "attention.qkv",
    "self_attn.dense": "attention.output",
    "self_attn.q_layernorm": "attention.query_norm",
    "self_attn.k_layernorm": "attention.key_norm",
    "mlp.dense_h_to_4h": "up",
    "mlp.dense_4h_to_h": "down",
    "input_layernorm": "norms.0",
    "post_attention_layernorm": "norms.1",
}


def from_released(weights: Mapping[str, Tensor], *, dim: int = 64) -> dict[str, Tensor]:
    """Map the parameters of `PersimmonForCausalLM` to a state dict for `Persimmon`.

    dim  size of a head

    The model in `transformers` rotates coordinate j of a head's first half with coordinate j + dim / 4, but
    ours rotates neighbouring coordinates. So the coordinates of queries, keys and their norms are permuted.
    Raises ValueError for an unknown name.
    """
    pairs = torch.cat((halves_to_pairs(dim // 2), torch.arange(dim // 2, dim)))
    ours = {}
    for name, tensor in weights.items():
        stem, kind = name.rsplit(".", 1)
        found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem)
        if stem in WHOLE:
            ours[f"{WHOLE[stem]}.{kind}"] = tensor
        elif found and found[2] in LAYER:
            part = LAYER[found[2]]
            if part == "attention.qkv":
                heads = tensor.unflatten(0, (-1, 3, dim))
                tensor = torch.cat((heads[:, :2, pairs], heads[:, 2:]), 1).flatten(0, 2)
            elif part in ("attention.query_norm", "attention.key_norm"):
                tensor = tensor[pairs]
            ours[f"blocks.{found[1]}.{part}.{kind}"] = tensor
        else:
            raise ValueError(f"Persimmon has no parameter {name}")
    return ours
