"""Renames the parameters in the authors' checkpoints, where they are stored under the key "model"
(github.com/jaywalnut310/glow-tts)."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .model import GlowTTS, Sizes

_WHOLE = {
    "encoder.emb": "encoder.embedding",
    "encoder.pre.proj": "encoder.prenet_out",
    "encoder.proj_m": "encoder.mean",
    "encoder.proj_s": "encoder.logs",
    "encoder.proj_w.conv_1": "encoder.durations.convs.0",
    "encoder.proj_w.conv_2": "encoder.durations.convs.1",
    "encoder.proj_w.norm_1": "encoder.durations.norms.0",
    "encoder.proj_w.norm_2": "encoder.durations.norms.1",
    "encoder.proj_w.proj": "encoder.durations_out",
}
_PARTS = (
    (r"encoder\.pre\.(conv|norm)_layers\.(\d+)", r"encoder.prenet.\1s.\2"),
    (r"encoder\.encoder\.attn_layers\.(\d+)\.conv_([qkv])", r"encoder.layers.\1.attention.\2_proj"),
    (r"encoder\.encoder\.attn_layers\.(\d+)\.conv_o", r"encoder.layers.\1.attention.out_proj"),
    (r"encoder\.encoder\.attn_layers\.(\d+)", r"encoder.layers.\1.attention"),
    (r"encoder\.encoder\.norm_layers_1\.(\d+)", r"encoder.layers.\1.layer_norm"),
    (r"encoder\.encoder\.norm_layers_2\.(\d+)", r"encoder.layers.\1.final_layer_norm"),
    (r"encoder\.encoder\.ffn_layers\.(\d+)\.(conv_[12])", r"encoder.layers.\1.feed_forward.\2"),
    (r"decoder\.flows\.(\d+)", r"flow.steps.\1"),
    (r"decoder\.flows\.(\d+)\.(start|end)", r"flow.steps.\1.\2"),
    (r"decoder\.flows\.(\d+)\.wn\.((?:in|res_skip)_layers\.\d+)", r"flow.steps.\1.wavenet.\2"),
)
_LAST = {"gamma": "weight", "beta": "bias", "weight_v": "weight"}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `GlowTTS`, from a `FlowGenerator`. Weight normalisation is folded into the weights.

    Standard deviations that are not learned (`mean_only`) are 1. Raises ValueError for other names, for
    example those of multi-speaker models.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, _, last = name.rpartition(".")
        if last == "weight_g":
            continue
        if last == "weight_v":
            norm = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            tensor = weights[f"{layer}.weight_g"] * (tensor / norm)
        elif layer.startswith("encoder.") and last == "weight" and tensor.shape[2:] == (1,):
            tensor = tensor.squeeze(2)  # a convolution of kernel size 1 is a matrix
        elif last in ("logs", "bias") and tensor.dim() == 3:
            tensor = tensor.squeeze(0)  # a parameter of an activation norm
        ours[f"{_renamed(layer)}.{_LAST.get(last, last)}"] = tensor
    for last in ("weight", "bias"):
        ours.setdefault(f"encoder.logs.{last}", torch.zeros_like(ours[f"encoder.mean.{last}"]))
    return ours


def _renamed(layer: str) -> str:
    if layer in _WHOLE:
        return _WHOLE[layer]
    for theirs, name in _PARTS:
        if found := re.fullmatch(theirs, layer):
            return found.expand(name)
    raise ValueError(f"single-speaker Glow-TTS has no parameter {layer}")


def load_released(weights: Mapping[str, Tensor], *, heads: int = 2) -> GlowTTS:
    """A model with the given parameters, in evaluation mode. All sizes except `heads` are inferred from the
    tensors' shapes."""
    ours = from_released(weights)

    def count(name: str) -> int:
        return len({found[1] for one in ours if (found := re.match(name, one))})

    symbols, hidden = ours["encoder.embedding.weight"].shape
    channels, _, kernel = ours["flow.steps.2.wavenet.in_layers.0.weight"].shape
    model = GlowTTS(
        Sizes(
            symbols=symbols,
            bands=len(ours["encoder.mean.bias"]),
            hidden=hidden,
            ffn=len(ours["encoder.layers.0.feed_forward.conv_1.bias"]),
            heads=heads,
            layers=count(r"encoder\.layers\.(\d+)"),
            prenet=count(r"encoder\.prenet\.convs\.(\d+)"),
            durations=len(ours["encoder.durations.convs.0.bias"]),
            channels=channels // 2,
            blocks=count(r"flow\.steps\.(\d+)") // 3,
            depth=count(r"flow\.steps\.2\.wavenet\.in_layers\.(\d+)"),
            kernel=kernel,
        )
    )
    model.load_state_dict(ours)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-4  # the authors' value
    return model.eval()
