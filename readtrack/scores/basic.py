"""Accuracy."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor


def accuracy(logits: Float[Tensor, "N classes"], labels: Int64[Tensor, " N"], *, k: int = 1) -> float:
    """The fraction of rows whose label is among the `k` largest logits. Raises ValueError without rows."""
    if not len(labels):
        raise ValueError("there are no rows to score")
    return float((logits.topk(k, dim=1).indices == labels[:, None]).any(1).double().mean())
