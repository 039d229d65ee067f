"""Renames released weights: those of `transformers` (SpeechT5's `microsoft/speecht5_hifigan`), and those of
the paper's authors."""

import re
from collections.abc import Mapping

from torch import Tensor

_NORMS = {"weight_g": "scale", "weight_v": "direction"} | {
    "parametrizations.weight.original0": "scale",
    "parametrizations.weight.original1": "direction",
}
_AUTHORS = {"ups": "upsampler"}
_OURS = re.compile(r"(conv_pre|conv_post|upsampler\.\d+|resblocks\.\d+\.convs[12]\.\d+)\.(weight|bias)")


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `Generator`, with weight norms folded into the weights.

    Leaves out SpeechT5's `mean` and `scale`, which normalise the spectrogram; the caller must apply them. The
    authors call the single convolutions of V3's blocks `convs`. Raises ValueError for a name that the
    generator does not have.
    """
    ours: dict[str, Tensor] = {}
    norms: dict[str, dict[str, Tensor]] = {}
    for name, tensor in weights.items():
        if name in ("mean", "scale"):
            continue
        first, _, rest = name.partition(".")
        short = f"{_AUTHORS.get(first, first)}.{rest}".replace(".convs.", ".convs1.")
        ending = next((one for one in _NORMS if short.endswith(one)), "")
        if ending:
            short = short.removesuffix(ending) + "weight"
            norms.setdefault(short, {})[_NORMS[ending]] = tensor
        elif _OURS.fullmatch(short):
            ours[short] = tensor
        if not _OURS.fullmatch(short):
            raise ValueError(f"the generator has no parameter {name}")
    for name, parts in norms.items():
        direction = parts["direction"]
        length = direction.flatten(1).norm(dim=1).view(-1, 1, 1)
        ours[name] = parts["scale"] * (direction / length)
    return ours
