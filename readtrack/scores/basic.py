"""Accuracy and rank correlation."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def accuracy(logits: Float[Tensor, "N classes"], labels: Int64[Tensor, " N"], *, k: int = 1) -> float:
    """The fraction of rows whose label is among the `k` largest logits. Raises ValueError if empty."""
    if not len(labels):
        raise ValueError("there are no rows to score")
    return float((logits.topk(k, dim=1).indices == labels[:, None]).any(1).double().mean())


def rank_correlation(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> float:
    """Spearman's rank correlation, with mean ranks for ties, or 0 if one side is constant."""
    a, b = _centred_ranks(x), _centred_ranks(y)
    size = a.norm() * b.norm()
    return float(a @ b / size) if size > 0 else 0.0


def _centred_ranks(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    ordered = x.sort().values
    first, last = torch.searchsorted(ordered, x), torch.searchsorted(ordered, x, right=True)
    ranks = (first + last).double() / 2
    return ranks - ranks.mean()
