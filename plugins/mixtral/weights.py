"""Released weights of `transformers`' Mixtral under our parameter names."""

from collections.abc import Mapping

from torch import Tensor

from ..sliding_window.weights import LAYER, in_pairs, renamed

ROUTER = {**LAYER, "mlp.gate": "feed_forward.router.gate"}
EXPERTS = ".mlp.experts."


def from_released(weights: Mapping[str, Tensor], *, dim: int = 128) -> dict[str, Tensor]:
    """Map the parameters of `MixtralForCausalLM` to a state dict for `Mixtral`.

    dim  size of a head

    Expects the format of transformers 5, in which one tensor has all experts of a layer, with their gate and
    up projections concatenated. Raises ValueError for an unknown name.
    """
    ours = {}
    for name, tensor in weights.items():
        if EXPERTS in name:
            layer = name.removeprefix("model.").split(".")[1]
            into = f"blocks.{layer}.feed_forward."
            if name.endswith("gate_up_proj"):
                ours[into + "w1"], ours[into + "w3"] = tensor.chunk(2, 1)
            elif name.endswith("down_proj"):
                ours[into + "w2"] = tensor
            else:
                raise ValueError(f"Mixtral has no parameter {name}")
        else:
            ours[renamed(name, ROUTER)] = in_pairs(name, tensor, dim)
    return ours
