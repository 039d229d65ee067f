"""Renames released weights: `google/byt5-small` and its siblings, as `transformers` loads them."""

from collections.abc import Mapping

from torch import Tensor

from ..t5 import from_released as from_t5

_PARTS = {"wi_0": "gate", "wi_1": "up", "wo": "down"}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `ByT5`, from that of `T5ForConditionalGeneration`.

    Raises ValueError for a name that ByT5 does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, weight in weights.items():
        head, _, part = name.removesuffix(".weight").partition(".DenseReluDense.")
        if name == "lm_head.weight":
            ours["readout.weight"] = weight
        elif part in _PARTS:
            stack, _, layer, *_ = head.split(".")
            ours[f"{stack}.{layer}.feed_forward.{_PARTS[part]}.weight"] = weight
        else:
            ours |= from_t5({name: weight})
    return ours
