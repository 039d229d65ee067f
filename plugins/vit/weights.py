"""Renames the released weights of `ViTForImageClassification` in `transformers`."""

import re
from collections.abc import Mapping

from torch import Tensor

_WHOLE = {
    "vit.embeddings.patch_embeddings.projection.bias": "embed.bias",
    "vit.layernorm.weight": "norm.weight",
    "vit.layernorm.bias": "norm.bias",
    "classifier.weight": "head.weight",
    "classifier.bias": "head.bias",
}
_RESHAPED = {
    "vit.embeddings.cls_token": ("token", lambda tensor: tensor[0, 0]),
    "vit.embeddings.position_embeddings": ("positions.weight", lambda tensor: tensor[0]),
    "vit.embeddings.patch_embeddings.projection.weight": ("embed.weight", lambda tensor: tensor.flatten(1)),
}
_LAYER = {
    "attention.q_proj": "attention.query",
    "attention.k_proj": "attention.key",
    "attention.v_proj": "attention.value",
    "attention.o_proj": "attention.output",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
    "layernorm_before": "norms.0",
    "layernorm_after": "norms.1",
}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of `ViTForImageClassification` to those of `ViT.load_state_dict`.

    The model in `transformers` embeds patches with a convolution, whose filters are the rows of our matrix.
    Raises ValueError for an unknown name.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer = re.fullmatch(r"vit\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer and layer[2] in _LAYER:
            ours[f"blocks.{layer[1]}.{_LAYER[layer[2]]}.{layer[3]}"] = tensor
        elif name in _WHOLE:
            ours[_WHOLE[name]] = tensor
        elif name in _RESHAPED:
            ours_name, reshape = _RESHAPED[name]
            ours[ours_name] = reshape(tensor)
        else:
            raise ValueError(f"ViT has no parameter {name}")
    return ours
