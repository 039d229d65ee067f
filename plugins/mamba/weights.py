"""Released weights under our parameter names.

`transformers` loads `state-spaces/mamba-130m-hf` and the larger models. The authors' own files differ only in
the name of the embedding.
"""

import re
from collections.abc import Mapping

from torch import Tensor

_INSIDE = {"x_proj", "dt_proj", "A_log", "D"}  # parameters of `SelectiveSSM`; the others belong to the block


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of `MambaForCausalLM` or the authors' model to a state dict for `Mamba`.

    The readout is tied to the embedding in both, so it is left out. Raises ValueError for an unknown name.
    """
    return {ours: tensor for name, tensor in weights.items() if (ours := _renamed(name))}


def _renamed(name: str) -> str:
    if name == "lm_head.weight":
        return ""
    if re.fullmatch(r"backbone\.embeddings?\.weight", name):
        return "embedding.weight"
    if name == "backbone.norm_f.weight":
        return "norm.weight"
    if layer := re.fullmatch(r"backbone\.layers\.(\d+)\.norm\.weight", name):
        return f"norms.{layer[1]}.weight"
    if mixer := re.fullmatch(r"backbone\.layers\.(\d+)\.mixer\.((\w+)(\.\w+)?)", name):
        return f"blocks.{mixer[1]}.{'ssm.' if mixer[3] in _INSIDE else ''}{mixer[2]}"
    raise ValueError(f"Mamba has no parameter {name}")
