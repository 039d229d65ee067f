"""Renames the released weights, which have the parameter names of `transformers`' OPT."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

BEFORE = "model.decoder."
WHOLE = {"embed_tokens": "tokens", "embed_positions": "positions", "final_layer_norm": "norm"}
LAYER = {
    "self_attn.out_proj": "attention.output",
    "fc1": "feed_forward.0",
    "fc2": "feed_forward.2",
    "self_attn_layer_norm": "norms.0",
    "final_layer_norm": "norms.1",
}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `Galactica`, from the parameters of `OPTForCausalLM`.

    Position i is in row i + 2 of the released embedding, so the first two rows are dropped. The query, key
    and value projections become one matrix. The output matrix is tied to the embedding and left out.
    Raises ValueError for a name that OPT does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stem, kind = name.removeprefix(BEFORE).rsplit(".", 1)
        found = re.fullmatch(r"layers\.(\d+)\.(.+)", stem)
        if name == "lm_head.weight":
            continue
        if stem in WHOLE:
            ours[f"{WHOLE[stem]}.{kind}"] = tensor[2:] if stem == "embed_positions" else tensor
        elif found and found[2] in LAYER:
            ours[f"blocks.{found[1]}.{LAYER[found[2]]}.{kind}"] = tensor
        elif found and found[2] == "self_attn.q_proj":
            three = [weights[name.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            ours[f"blocks.{found[1]}.attention.qkv.{kind}"] = torch.cat(three)
        elif not (found and found[2] in ("self_attn.k_proj", "self_attn.v_proj")):
            raise ValueError(f"OPT has no parameter {name}")
    return ours
