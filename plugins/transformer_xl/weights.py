"""Released weights under our parameters' names, for the authors' PyTorch model of characters.

`transformers` held it as TransfoXL until it was taken out; names may begin with its `transformer.`
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
ELSEWHERE = {"crit.out_layers.0.weight", "pos_emb.inv_freq"}  # the embedding once more, and a constant


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For `TransformerXL.load_state_dict`, with `scale` = √model; u and v shared by all layers.

    Raises ValueError at a name of no such model: one for words has several embeddings, or u and v in each
    layer.
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
            raise ValueError(f"no parameter of a Transformer-XL for characters: {name}")
    return ours


def interleaved(tensor: Tensor) -> Tensor:
    """Their table of distances holds all sines, then all cosines; ours each sine before its cosine."""
    return tensor.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
