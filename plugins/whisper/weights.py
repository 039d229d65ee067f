"""Renames the parameters of released weights, such as `openai/whisper-tiny` in `transformers`."""

import re
from collections.abc import Mapping

from torch import Tensor

_OURS = re.compile(r"(encoder|decoder)\.(conv[12]|embed_tokens|embed_positions|layers\.\d+|layer_norm)\.")


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Map the parameters of `WhisperForConditionalGeneration` or `WhisperModel` to those of `Whisper`.

    The tied output layer is left out. Raises ValueError for names that do not belong to a Whisper model.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = name.removeprefix("model.")
        if _OURS.match(short):
            ours[short] = tensor
        elif name != "proj_out.weight":
            raise ValueError(f"Whisper has no parameter {name}")
    return ours
