"""Renames the released Mistral weights from the names in `transformers`."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..rope import halves_to_pairs

WHOLE = {
    "embed_tokens.weight": "embed.weight",
    "norm.weight": "norm.weight",
    "lm_head.weight": "readout.weight",
}
LAYER = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "norms.0",
    "post_attention_layernorm": "norms.1",
}


def from_released(weights: Mapping[str, Tensor], *, dim: int = 128) -> dict[str, Tensor]:
    """Map the parameters of `MistralForCausalLM` to those of `Mistral.load_state_dict`.

    dim  size of a head

    The rotary embedding in `transformers` pairs coordinate j with j + dim / 2, and ours pairs neighbours. The
    rows of queries and keys are therefore permuted. Raises ValueError for an unknown name.
    """
    return {renamed(name, LAYER): in_pairs(name, tensor, dim) for name, tensor in weights.items()}


def renamed(name: str, layer: Mapping[str, str]) -> str:
    bare = name.removeprefix("model.")
    if bare in WHOLE:
        return WHOLE[bare]
    found = re.fullmatch(r"layers\.(\d+)\.(.+)\.weight", bare)
    if not found or found[2] not in layer:
        raise ValueError(f"Mistral has no parameter {name}")
    return f"blocks.{found[1]}.{layer[found[2]]}.weight"


def in_pairs(name: str, tensor: Tensor, dim: int) -> Tensor:
    if re.search(r"\.(q|k)_proj\.", name):
        return tensor.unflatten(0, (-1, dim))[:, halves_to_pairs(dim)].flatten(0, 1)
    return tensor
