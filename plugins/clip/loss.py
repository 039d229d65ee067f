"""Implements figure 3's contrastive loss, which predicts the text of each image and the image of each text.

Dimensions: n (images, and their texts in the same order), dim.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Vectors = Float[Tensor, "n dim"]


def two_cross_entropies(seen: Vectors, said: Vectors, scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Figure 3 as written.

    seen, said  vectors of length 1
    """
    logits = scale * seen @ said.T
    right = torch.arange(len(seen), device=seen.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def contrastive(
    seen: Vectors, said: Vectors, scale: Float[Tensor, ""], *, rows: int = 256
) -> Float[Tensor, ""]:
    """The same loss, computed for `rows` images at a time. The whole matrix (4 GB for 32,768 pairs) is never
    stored.

    Both cross-entropies are log-sum-exps minus the matching logits. The columns' log-sum-exps are combined
    from those of the parts. Each part is recomputed in the backward pass.
    """
    scaled = scale * seen
    if len(seen) <= rows:
        along, down = sums(scaled, said)
    else:
        parts = [checkpoint(sums, part, said, use_reentrant=False) for part in scaled.split(rows)]
        along = torch.cat([part[0] for part in parts])
        down = torch.stack([part[1] for part in parts]).logsumexp(0)
    return (along.mean() + down.mean()) / 2 - (scaled * said).sum(1).mean()


def sums(
    scaled: Float[Tensor, "rows dim"], said: Vectors
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " n"]]:
    """Log-sum-exps over the rows and the columns of `scaled` times `said` transposed."""
    logits = scaled @ said.T
    return logits.logsumexp(1), logits.logsumexp(0)
