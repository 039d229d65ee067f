"""Renames the released weights, `openai-community/openai-gpt`, from the names of `transformers`."""

import re
from collections.abc import Mapping

from torch import Tensor

from .model import GPT

_WHOLE = {"tokens_embed.weight": "tokens.weight", "positions_embed.weight": "positions.weight"}
_LAYER = {
    "attn.c_proj": "attention.output",
    "mlp.c_fc": "feed_forward.0",
    "mlp.c_proj": "feed_forward.2",
    "ln_1": "norms.0",
    "ln_2": "norms.1",
}


def from_released(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict for `GPT`, from the parameters of `OpenAIGPTLMHeadModel` or of its base model.

    Released matrices multiply from the right, so they are transposed. One released matrix holds the
    projections to queries, keys and values. The output matrix is tied to the embedding and left out. Raises
    ValueError for a name that GPT does not have.
    """
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        name = name.removeprefix("transformer.")
        found = re.fullmatch(r"h\.(\d+)\.(.+)\.(weight|bias)", name)
        if name in _WHOLE:
            ours[_WHOLE[name]] = tensor
        elif found and found[2] == "attn.c_attn":
            for part, third in zip(("query", "key", "value"), tensor.chunk(3, -1), strict=True):
                ours[f"blocks.{found[1]}.attention.{part}.{found[3]}"] = _turned(third)
        elif found and found[2] in _LAYER:
            ours[f"blocks.{found[1]}.{_LAYER[found[2]]}.{found[3]}"] = _turned(tensor)
        elif name != "lm_head.weight":
            raise ValueError(f"GPT has no parameter {name}")
    return ours


def load_released(weights: Mapping[str, Tensor], *, heads: int = 12) -> GPT:
    """A model with these parameters, in evaluation mode. The released model's heads have size 64."""
    renamed = from_released(weights)
    (vocab, model), context = renamed["tokens.weight"].shape, len(renamed["positions.weight"])
    layers = len({name.split(".")[1] for name in renamed if name.startswith("blocks.")})
    gpt = GPT(vocab, context=context, model=model, heads=heads, layers=layers)
    gpt.load_state_dict(renamed)
    return gpt.eval()


def _turned(tensor: Tensor) -> Tensor:
    return tensor.mT if tensor.ndim == 2 else tensor
