"""Renames the released weights of RoBERTa (`FacebookAI/roberta-base`) from the names in `transformers`."""

from collections.abc import Mapping

from torch import Tensor

from ..bert import trunk_name

_HEAD = {"dense": "head.dense", "layer_norm": "head.norm"}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of `RobertaForMaskedLM` to those of BERT's `MaskedModel` with a `RoBERTa`.

    The file has no pooler, so our pooler keeps its initial weights (load with `strict=False`). The readout is
    tied to the embedding and left out. Raises ValueError for an unknown name.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        part, _, kind = name.removeprefix("lm_head.").rpartition(".")
        if name == "lm_head.bias":
            ours["head.bias"] = tensor
        elif name.startswith("lm_head.") and part in _HEAD:
            ours[f"{_HEAD[part]}.{kind}"] = tensor
        elif inside := trunk_name(name.removeprefix("roberta.")):
            ours[f"bert.{inside}"] = tensor
        elif part not in ("decoder", "roberta.embeddings") or kind not in ("weight", "bias", "position_ids"):
            raise ValueError(f"RoBERTa has no parameter {name}")
    return ours
