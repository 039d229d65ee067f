"""Renames released weights, from `transformers`' CLIPModel (Vision Transformers) or from OpenAI's files
(residual networks)."""

import re
from collections.abc import Mapping

from torch import Tensor

_TOWERS = {"text_model": "text", "vision_model": "vision"}
_PARTS = {
    "embeddings.token_embedding": "tokens",
    "embeddings.position_embedding": "positions",
    "embeddings.patch_embedding": "patches",
    "final_layer_norm": "norm",
    "pre_layrnorm": "norm_first",  # the file's spelling
    "post_layernorm": "norm",
}
_LAYER = {
    "layer_norm1": "norms.0",
    "layer_norm2": "norms.1",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.output",
    "mlp.fc1": "feed_forward.0",
    "mlp.fc2": "feed_forward.2",
}
_WHOLE = {
    "logit_scale": "log_scale",
    "text_projection.weight": "text.projection.weight",
    "visual_projection.weight": "vision.projection.weight",
    "vision_model.embeddings.class_embedding": "vision.summary",
}
_POOL = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "c_proj": "output"}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `CLIP`, from the parameters of `transformers`' CLIPModel.

    From the parameters of a CLIPTextModel, the result has only those of `TextTower`, under "text.". Buffers
    of position ids are left out. Raises ValueError for a name that CLIP does not have.
    """
    return {_renamed(name): tensor for name, tensor in weights.items() if not name.endswith("position_ids")}


def _renamed(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    tower, _, rest = name.partition(".")
    part, _, kind = rest.rpartition(".")
    found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", part)
    if tower in _TOWERS and part in _PARTS:
        return f"{_TOWERS[tower]}.{_PARTS[part]}.{kind}"
    if tower in _TOWERS and found and found[2] in _LAYER:
        return f"{_TOWERS[tower]}.blocks.{found[1]}.{_LAYER[found[2]]}.{kind}"
    raise ValueError(f"CLIP has no parameter {name}")


def resnet_from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `ResNetTower`, from the parameters under "visual." of OpenAI's RN50 and its siblings.

    The normalisations' batch counters are left out. Raises ValueError for a name that the tower does not
    have.
    """
    return {
        _renamed_resnet(name.removeprefix("visual.")): tensor
        for name, tensor in weights.items()
        if not name.endswith("num_batches_tracked")
    }


def _renamed_resnet(name: str) -> str:
    part, _, kind = name.rpartition(".")
    layer = {"conv": "convolution", "bn": "normalization"}
    if found := re.fullmatch(r"(conv|bn)([123])", part):
        return f"stem.{2 * int(found[2]) - 2}.{layer[found[1]]}.{kind}"
    if found := re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", part):
        block = f"stages.{int(found[1]) - 1}.{found[2]}"
        if inner := re.fullmatch(r"(conv|bn)([123])", found[3]):
            return f"{block}.layers.{int(inner[2]) - 1}.{layer[inner[1]]}.{kind}"
        if found[3] in ("downsample.0", "downsample.1"):
            which = "convolution" if found[3].endswith("0") else "normalization"
            return f"{block}.projection.{which}.{kind}"
    if name == "attnpool.positional_embedding":
        return "pool.positions.weight"
    if part.startswith("attnpool.") and part.removeprefix("attnpool.") in _POOL:
        return f"pool.{_POOL[part.removeprefix('attnpool.')]}.{kind}"
    raise ValueError(f"CLIP's residual networks have no parameter {name}")
