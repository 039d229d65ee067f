"""Accuracy and rank correlation."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def accuracy(logits: Float[Tensor, "N classes"], labels: Int64[Tensor, " N"], *, k: int = 1) -> float:
    """The fraction of rows whose label is among the `k` largest logits. Raises ValueError without rows."""
    if not len(labels):
        raise ValueError("there are no rows to score")
    return float((logits.topk(k, dim=1).indices == labels[:, None]).any(1).double().mean())


def rank_correlation(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> float:
    """Spearman's rank correlation, with mean ranks for ties, or 0 if one side is constant."""
    from scipy.stats import rankdata  # installed with scikit-learn; the import takes a second

    ranks = torch.from_numpy(rankdata(torch.stack([x, y]).double().cpu().numpy(), axis=1))
    ranks -= ranks.mean(1, keepdim=True)
    size = ranks.norm(dim=1).prod()
    return float(ranks[0] @ ranks[1] / size) if size > 0 else 0.0
