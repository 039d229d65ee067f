"""Implements BERT with the position numbering and the sizes of the released RoBERTa."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..bert import BERT, replaced

PADDING = 1  # id of the padding token


class RoBERTa(BERT):
    """The defaults are those of the base model. Masking and the readout are in BERT's `MaskedModel`.

    context  length of the longest sequence; positions start at `PADDING` + 1, so there are `context` + 2
             position vectors
    """

    def __init__(
        self,
        vocab: int = 50_265,
        *,
        context: int = 512,
        model: int = 768,
        heads: int = 12,
        layers: int = 12,
        std: float = 0.02,
        eps: float = 1e-5,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(
            vocab,
            context=context + PADDING + 1,
            segments=1,
            model=model,
            heads=heads,
            layers=layers,
            std=std,
            eps=eps,
            dropout=dropout,
        )

    def position_ids(self, ids: Int[Tensor, "batch tokens"]) -> Int[Tensor, "batch tokens"]:
        """Padding tokens have the position `PADDING`. Other tokens are numbered from `PADDING` + 1 on."""
        there = (ids != PADDING).long()
        return there.cumsum(1) * there + PADDING


LARGE = {"model": 1024, "heads": 16, "layers": 24}


def fresh_mask(
    ids: Int[Tensor, "batch tokens"],
    dice: Float[Tensor, "batch tokens"],
    fate: Float[Tensor, "batch tokens"],
    drawn: Int[Tensor, "batch tokens"],
    *,
    mask: int,
    rate: float = 0.15,
) -> tuple[Int[Tensor, "batch tokens"], Bool[Tensor, "batch tokens"]]:
    """Section 4.1: mask a batch when it is read, and return the model's input and the mask of its targets.

    dice, fate  uniform random numbers in [0, 1): which tokens are chosen, and how each is replaced
    drawn       random tokens
    """
    chosen = dice < rate
    return replaced(ids, chosen, fate, drawn, mask=mask), chosen
