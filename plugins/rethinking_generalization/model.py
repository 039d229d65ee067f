"""Theorem 1: a network with 2n + d weights that memorises n examples."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Points = Float[Tensor, " count"]


def memorise(z: Points, y: Points) -> tuple[Points, Points]:
    """Theorem 1: b and w, sorted by z, such that Σ_j w_j max(z_i - b_j, 0) = y_i for every i.

    z   projections of the examples, all different
    b   thresholds. Each is the next smaller z, and the first is 1 below the smallest z
    """
    # The system is triangular, and the slope between two neighbouring z is the sum of all w so far. Each w is
    # therefore a difference of slopes.
    single = torch.promote_types(z.dtype, torch.float32)
    z, order = z.to(single).sort()
    y = y.to(single)[order]
    b = torch.cat((z[:1] - 1, z[:-1]))
    slopes = y.diff(prepend=y.new_zeros(1)) / (z - b)
    return b, slopes.diff(prepend=slopes.new_zeros(1))


class Memory(nn.Module):
    """Lemma 1's network: one direction a, n thresholds b, n weights w."""

    def __init__(self, x: Float[Tensor, "count dim"], y: Points, a: Float[Tensor, " dim"]) -> None:
        super().__init__()
        self.a = nn.Parameter(a.clone())
        b, w = memorise(x @ a, y)
        self.b, self.w = nn.Parameter(b), nn.Parameter(w)

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        return F.relu((x @ self.a)[:, None] - self.b) @ self.w
