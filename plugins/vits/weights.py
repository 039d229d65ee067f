"""Renames the parameters of released VITS weights, such as `facebook/mms-tts-eng` in `transformers`.

Supports single-speaker models only.
"""

import re
from collections.abc import Mapping

from torch import Tensor


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of `VitsModel` to those of `VITS.load_state_dict`, with weight norms multiplied in.

    Raises ValueError for a multi-speaker model, which has speaker embeddings.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if "cond" in name or "embed_speaker" in name:
            raise ValueError(f"multi-speaker weights are not supported: {name}")
        found = re.fullmatch(r"duration_predictor\.(post_)?flows\.(\d+)\.(.+)", name)
        if name.endswith("parametrizations.weight.original1"):
            scale = weights[name[:-1] + "0"]
            norm = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            ours[name.replace("parametrizations.weight.original1", "weight")] = scale * (tensor / norm)
        elif found:
            flow, place = f"duration_predictor.{found[1] or ''}flow", int(found[2])
            if place:
                ours[f"{flow}.couplings.{place - 1}.{found[3]}"] = tensor
            else:
                ours[f"{flow}.scale.{'bias' if found[3] == 'translate' else 'logs'}"] = tensor
        elif not name.endswith("original0"):
            ours[name] = tensor
    return ours
