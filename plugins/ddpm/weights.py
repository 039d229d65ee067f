"""Renames released weights of `google/ddpm-cifar10-32` and its siblings, as published for diffusers."""

import re
from collections.abc import Mapping

from torch import Tensor

# Names of attention layers when the files were first published. Newer files have our names.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `UNet`, from the parameters of a `UNet2DModel` under old or new names.

    Projections that a file stores as 1 x 1 convolutions become matrices. The defaults of `UNet` are the sizes
    for CIFAR-10; 256 x 256 images (`google/ddpm-celebahq-256`) have multiples=(1, 1, 2, 2, 4, 4) and
    attention_at=(4,).
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        found = _ATTENTION.fullmatch(name)
        if found:
            ours[f"{found[1]}.{_OLD[found[2]]}.{found[3]}"] = (
                tensor.flatten(1) if tensor.dim() > 1 else tensor
            )
        else:
            ours[name] = tensor
    return ours
