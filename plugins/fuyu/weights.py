"""Renames the released parameters, which have the names of `transformers`' Fuyu."""

from collections.abc import Mapping

from torch import Tensor

from ..persimmon import from_released as from_persimmon

_LOOK = "model.vision_embed_tokens."
_DECODER = "model.language_model."


def from_released(weights: Mapping[str, Tensor], *, dim: int = 64, channels: int = 3) -> dict[str, Tensor]:
    """A state dict for `Fuyu`, from `FuyuForCausalLM` with heads of size `dim`.

    The released model flattens patches with the channel last, and ours with the channel first. Raises
    ValueError for a name that Fuyu does not have.
    """
    ours, decoder = {}, {}
    for name, tensor in weights.items():
        if name.startswith(_LOOK):
            if tensor.dim() == 2:
                tensor = tensor.unflatten(1, (-1, channels)).mT.flatten(1)
            ours[f"look.{name.removeprefix(_LOOK)}"] = tensor
        else:
            decoder[name.replace(_DECODER, "model.")] = tensor
    return ours | from_persimmon(decoder, dim=dim)
