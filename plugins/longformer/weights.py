"""Renames released weights of `transformers`, such as `allenai/longformer-base-4096`."""

import re
from collections.abc import Mapping

from torch import Tensor

from ..bert import trunk_name


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `Longformer`, from the parameters of `LongformerModel`.

    Raises ValueError for a name that Longformer does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        short = name.removeprefix("longformer.")
        found = re.fullmatch(
            r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)_global\.(weight|bias)", short
        )
        if found:
            ours[f"blocks.{found[1]}.attention.{found[2]}_global.{found[3]}"] = tensor
        elif inside := trunk_name(short):
            ours[inside] = tensor
        elif short != "embeddings.position_ids":
            raise ValueError(f"Longformer has no parameter {name}")
    return ours
