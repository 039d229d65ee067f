"""Renames the released Reformer weights from the names in `transformers`."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

WHOLE = {
    "embeddings.word_embeddings": "tokens",
    "embeddings.position_embeddings.embedding": "positions",
    "encoder.layer_norm": "norm",
    "lm_head.decoder": "output",
    "lm_head": "output",
}
LAYER = {
    "attention.layer_norm": "norms.0",
    "attention.self_attention.query_key": "attention.query_key",
    "attention.self_attention.value": "attention.value",
    "attention.output.dense": "attention.output",
    "feed_forward.layer_norm": "norms.1",
    "feed_forward.dense.dense": "feed_forward.0",
    "feed_forward.output.dense": "feed_forward.2",
}
AXES = tuple(f"embeddings.position_embeddings.weights.{axis}" for axis in range(2))


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of a `ReformerModelWithLMHead` with only hashed layers to those of a `Reformer`.

    Axial positions are expanded to a table. Raises ValueError for an unknown name. The released models also
    have layers of local attention, which are not in the paper.
    """
    ours: dict[str, Tensor] = {}
    bare = {name.removeprefix("reformer."): tensor for name, tensor in weights.items()}
    if AXES[0] in bare:
        ours["positions.weight"] = table(*(bare.pop(axis) for axis in AXES))
    for name, tensor in bare.items():
        part, _, kind = name.rpartition(".")
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", part)
        if part in WHOLE:
            ours[f"{WHOLE[part]}.{kind}"] = tensor
        elif found and found[2] in LAYER:
            ours[f"layers.{found[1]}.{LAYER[found[2]]}.{kind}"] = tensor
        else:
            raise ValueError(f"not a parameter of a Reformer with hashed attention in all layers: {name}")
    return ours


def table(rows: Tensor, columns: Tensor) -> Tensor:
    """Combine tensors of shape (rows, 1, a) and (1, columns, b) into one of shape (rows · columns, a + b)."""
    shape = len(rows), columns.shape[1]
    return torch.cat([axis.expand(*shape, -1) for axis in (rows, columns)], -1).flatten(0, 1)
