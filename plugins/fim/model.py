"""Moves the middle of each text to its end, and restores the original text."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PRE, SUF, MID, EOT = range(4)  # tokens of texts start at 4
NAMES = 4

# Positions of prefix, middle, suffix and the four special tokens: section 3's PSM, and appendix D's second
# variant of SPM. In this variant no token separates prefix and middle, so the KV cache of the prefix stays
# valid as the middle grows.
PSM = (1, 5, 3, 0, 2, 4, 6)
SPM = (4, 5, 2, 0, 1, 3, 6)


def fill_in_the_middle(
    texts: Int[Tensor, "batch length"], cuts: Int[Tensor, "batch 2"], spm: Bool[Tensor, " batch"]
) -> Int[Tensor, "batch longer"]:
    """Reorders each text as PSM, or as SPM where `spm` is True, and appends the end token.

    cuts  start of the middle and start of the suffix, sorted, from 0 to length
    """
    batch, length = texts.shape
    place = torch.arange(length, device=texts.device)
    part = (place >= cuts[:, :1]).long() + (place >= cuts[:, 1:]).long()  # 0 prefix, 1 middle, 2 suffix
    names = torch.arange(NAMES, device=texts.device).expand(batch, -1)
    parts = torch.cat((part, names + 3), 1)
    ranks = torch.tensor((PSM, SPM), device=texts.device)[spm.long()].gather(1, parts)
    return torch.cat((texts, names), 1).gather(1, ranks.argsort(dim=1, stable=True))


def restored(text: Int[Tensor, " longer"]) -> list[int]:
    """The original text of a row of `fill_in_the_middle`. Raises ValueError for any other row."""
    tokens = text.tolist()
    try:
        suf, mid = tokens.index(SUF), tokens.index(MID)
        pre, end = tokens.index(PRE), tokens.index(EOT)
    except ValueError as error:
        raise ValueError("a part of the text has no sentinel token") from error
    if pre or not suf < mid < end == len(tokens) - 1:  # in SPM the prefix is right before the middle
        raise ValueError("the parts of the text are in neither PSM nor SPM order")
    return tokens[1:suf] + tokens[mid + 1 : end] + tokens[suf + 1 : mid]
