"""The Fréchet distance between two Gaussians, and between two samples through fitted Gaussians."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(a: Float[Tensor, "n dim"], b: Float[Tensor, "m dim"]) -> float:
    """The squared Fréchet distance of Gaussians with the samples' means and (unbiased) covariances.

    This is the FID (Heusel et al. 2017, arXiv 1706.08500) for features of any network. Its upward bias is
    larger for fewer rows, so compare samples of equal size. It is computed in float64. Raises ValueError for
    samples of fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"samples of {len(a)} and {len(b)} rows: a covariance needs at least two")
    a, b = a.double(), b.double()
    return gaussian_frechet_distance(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def gaussian_frechet_distance(
    mean: Float[Tensor, " dim"],
    covariance: Float[Tensor, "dim dim"],
    other_mean: Float[Tensor, " dim"],
    other_covariance: Float[Tensor, "dim dim"],
) -> float:
    """|m - n|^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau 1982, doi 10.1016/0047-259X(82)90077-X).

    A B has the eigenvalues of the symmetric matrix A^(1/2) B A^(1/2). The sum of their roots is computed with
    negative rounding errors clamped to 0, so that singular covariances work, too.
    """
    values, vectors = torch.linalg.eigh(covariance.double())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    roots = torch.linalg.eigvalsh(root @ other_covariance.double() @ root).clamp(min=0).sqrt()
    shift = (mean.double() - other_mean.double()).square().sum()
    return float(shift + covariance.trace() + other_covariance.trace() - 2 * roots.sum())
