"""Implements section 4.1's decoder: GPT-2's decoder without biases and with the exact GELU."""

from torch import nn

from ..gpt2 import GPT2

VOCAB = 50_000
SIZES = {  # table 5: hidden size, heads, layers
    "125M": {"model": 768, "heads": 12, "layers": 12},
    "1.3B": {"model": 2048, "heads": 32, "layers": 24},
    "6.7B": {"model": 4096, "heads": 32, "layers": 32},
    "30B": {"model": 7168, "heads": 56, "layers": 48},
    "120B": {"model": 10_240, "heads": 80, "layers": 96},
}


class Galactica(GPT2):
    """The paper's decoder. The defaults are its smallest size, and `SIZES` has all five.

    context  maximum number of tokens
    bias     whether linear layers have biases, as in the released files of some sizes (the paper has none)
    """

    def __init__(
        self,
        vocab: int = VOCAB,
        *,
        context: int = 2048,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        std: float = 0.02,
        bias: bool = False,
    ) -> None:
        super().__init__(vocab, context=context, model=model, heads=heads, layers=layers, std=std)
        for block in self.blocks:
            block.feed_forward[1] = nn.GELU()
        for layer in self.modules():
            if isinstance(layer, nn.Linear) and not bias:
                layer.register_parameter("bias", None)
