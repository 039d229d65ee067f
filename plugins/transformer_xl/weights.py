"""Renames the released weights of the authors' PyTorch character model.

The package `transformers` contained this model as TransfoXL. Names may begin with its prefix `transformer.`
"""

import re
from collections.abc import Mapping

from torch import Tensor

WHOLE = {
    "word_emb.emb_layers.0.weight": "embedding.weight",
    "crit.out_layers.0.bias": "bias",
    "r_w_bias": "u",
    "r_r_bias": "v",
}
LAYER = {
    "dec_attn.r_net": "attention.position",
    "dec_attn.o_net": "attention.output",
    "dec_attn.layer_norm": "norms.0",
    "pos_ff.CoreNet.0": "feed_forward.0",
    "pos_ff.CoreNet.3": "feed_forward.3",
    "pos_ff.layer_norm": "norms.1",
}
ELSEWHERE = {"crit.out_layers.0.weight", "pos_emb.inv_freq"}  # a copy of the embedding, and a constant


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map released parameters to those of `TransformerXL`, with `scale` = √model and shared u and v.

    Raises ValueError for an unknown name, for example from a word-level model, which has several embeddings,
    or u and v in each layer.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = name.removeprefix("transformer.")
        found = re.fullmatch(r"layers\.(\d+)\.(.+)\.(weight|bias)", short)
        if short in WHOLE:
            ours[WHOLE[short]] = tensor
        elif found and found[2] == "dec_attn.qkv_net":
            for part, matrix in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                ours[f"layers.{found[1]}.attention.{part}.weight"] = matrix
        elif found and found[2] in LAYER:
            turned = interleaved(tensor) if found[2] == "dec_attn.r_net" else tensor
            ours[f"layers.{found[1]}.{LAYER[found[2]]}.{found[3]}"] = turned
        elif short not in ELSEWHERE:
            raise ValueError(f"Transformer-XL for characters has no parameter {name}")
    return ours


def interleaved(tensor: Tensor) -> Tensor:
    """Interleaves sines and cosines. The released table of distances has all sines before all cosines."""
    return tensor.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
