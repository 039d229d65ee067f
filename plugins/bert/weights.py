"""Renames the weights of `google-bert/bert-base-uncased` and its siblings, as `transformers` loads them."""

import re
from collections.abc import Mapping

from torch import Tensor

_EMBEDDINGS = {
    "word_embeddings": "tokens",
    "position_embeddings": "positions",
    "token_type_embeddings": "segments",
    "LayerNorm": "norm",
}
_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "norms.0",
    "intermediate.dense": "feed_forward.0",
    "output.dense": "feed_forward.2",
    "output.LayerNorm": "norms.1",
}
_HEAD = {
    "cls.predictions.bias": "head.bias",
    "cls.predictions.transform.dense": "head.dense",
    "cls.predictions.transform.LayerNorm": "head.norm",
    "cls.seq_relationship": "next",
}
_TIED = {"cls.predictions.decoder", "embeddings.position_ids"}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `PreTraining`, from that of `BertForPreTraining`, `BertForMaskedLM` or `BertModel`.

    The output matrix, which is tied to the embedding, and the second name of its bias are left out. Raises
    ValueError for a name that BERT does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = name.removeprefix("bert.")
        if short.rpartition(".")[0] in _TIED or short in _TIED:
            continue
        head, _, kind = name.rpartition(".")
        if name in _HEAD:
            ours[_HEAD[name]] = tensor
        elif head in _HEAD:
            ours[f"{_HEAD[head]}.{kind}"] = tensor
        elif inside := trunk_name(short):
            ours[f"bert.{inside}"] = tensor
        else:
            raise ValueError(f"BERT has no parameter {name}")
    return ours


def trunk_name(name: str) -> str:
    """Our name for a parameter of `BertModel` or `RobertaModel`, or "" if we have none."""
    part, _, kind = name.rpartition(".")
    if part == "pooler.dense":
        return f"pooler.{kind}"
    if part.startswith("embeddings."):
        found = _EMBEDDINGS.get(part.removeprefix("embeddings."))
        return f"{found}.{kind}" if found else ""
    layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", part)
    if layer and layer[2] in _LAYER:
        return f"blocks.{layer[1]}.{_LAYER[layer[2]]}.{kind}"
    return ""
