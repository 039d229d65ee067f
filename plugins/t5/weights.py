"""Renames the parameters of released T5 1.0 weights, such as `google-t5/t5-base` in `transformers`."""

import re
from collections.abc import Mapping

from torch import Tensor

_WHOLE = {
    "shared.weight": "embedding.weight",
    "encoder.final_layer_norm.weight": "encoder_norm.weight",
    "decoder.final_layer_norm.weight": "decoder_norm.weight",
}
_SECOND_NAMES = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
_ATTENTION = {"SelfAttention": "attention", "EncDecAttention": "source_attention"}
_PROJECTIONS = {"q": "query", "k": "key", "v": "value", "o": "output"}
_PARTS = {"DenseReluDense.wi": "feed_forward.0", "DenseReluDense.wo": "feed_forward.3"}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of `T5ForConditionalGeneration` to those of `T5.load_state_dict`.

    Copies of the embedding are left out. Raises ValueError for an unknown name.
    """
    return {ours: tensor for name, tensor in weights.items() if (ours := _renamed(name))}


def _renamed(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    if name in _SECOND_NAMES:
        return ""
    found = re.fullmatch(r"(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.(.+)\.weight", name)
    if not found:
        raise ValueError(f"T5 has no parameter {name}")
    stack, layer, place, part = found.groups()
    if part == "SelfAttention.relative_attention_bias":
        return f"{stack}_bias.table.weight"
    if part == "layer_norm":
        return f"{stack}.{layer}.norms.{place}.weight"
    if part in _PARTS:
        return f"{stack}.{layer}.{_PARTS[part]}.weight"
    attention, _, projection = part.partition(".")
    if attention not in _ATTENTION or projection not in _PROJECTIONS:
        raise ValueError(f"T5 has no parameter {name}")
    return f"{stack}.{layer}.{_ATTENTION[attention]}.{_PROJECTIONS[projection]}.weight"
