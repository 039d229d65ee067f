"""The loss of figure 3: each image is to find its text among all of the batch, and each text its image.

Dimensions: n (images, and their texts in the same order), dim.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Vectors = Float[Tensor, "n dim"]


def two_cross_entropies(seen: Vectors, said: Vectors, scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Figure 3 as it is written.

    seen, said  of length 1
    """
    logits = scale * seen @ said.T
    right = torch.arange(len(seen), device=seen.device)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def contrastive(
    seen: Vectors, said: Vectors, scale: Float[Tensor, ""], *, rows: int = 256
) -> Float[Tensor, ""]:
    """The same, of `rows` images at a time: the whole matrix is never held, of 32,768 pairs 4 gigabytes.

    Both cross-entropies take what fits from the logarithm of a sum of exponentials; the sums along the
    columns are put together from those of the parts. Each part is calculated again for the gradient.
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
    """Logarithms of the sums of exponentials along the rows of their products, and down the columns."""
    logits = scaled @ said.T
    return logits.logsumexp(1), logits.logsumexp(0)
