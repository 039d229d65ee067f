"""Implements the two-loop recursion, and the optimiser `LBFGS`.

Dimensions: n (all weights as one vector), m (stored pairs).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..bfgs.model import BFGS
from ..newton.model import Vector

Pairs = Sequence[Vector]


def two_loop(gradient: Vector, s: Pairs, y: Pairs, gamma: Float[Tensor, ""] | float) -> Vector:
    """H g, where H is gamma I after BFGS updates with the pairs (s[i], y[i]), oldest first.

    Nocedal 1980, and algorithm 2.1 of Liu and Nocedal: 4mn multiplications, without forming a matrix.
    """
    q, alphas = gradient.clone(), []
    rhos = [1 / (a @ b) for a, b in zip(s, y, strict=True)]
    for i in reversed(range(len(s))):
        alphas.append(rhos[i] * (s[i] @ q))
        q.addcmul_(alphas[-1], y[i], value=-1)
    r = gamma * q
    for i, alpha in enumerate(reversed(alphas)):
        r.addcmul_(alpha - rhos[i] * (y[i] @ r), s[i])
    return r


class LBFGS(BFGS):
    """BFGS with only the last `pairs` steps and gradient changes. Stores 2mn numbers instead of a matrix.

    pairs   m, the number of stored pairs; a new pair replaces the oldest
    scaled  start each product from gamma I, with gamma = sᵀy / yᵀy of the newest pair, instead of from I
    """

    def __init__(
        self,
        weights: Iterable[Any],
        iterations: int = 20,
        tolerance: float = 1e-8,
        c1: float = 1e-4,
        c2: float = 0.9,
        pairs: int = 10,
        scaled: bool = True,
    ) -> None:
        if pairs < 1:
            raise ValueError(f"pairs={pairs}: at least one is needed")
        super().__init__(weights, iterations=iterations, tolerance=tolerance, c1=c1, c2=c2)
        self.param_groups[0].update(pairs=pairs, scaled=scaled)

    def direction(self, gradient: Vector) -> Vector:
        s, y = self.memory.get("s", []), self.memory.get("y", [])
        if not s:
            return -gradient
        return -two_loop(gradient, s, y, self.scale(s, y) if self.param_groups[0]["scaled"] else 1.0)

    def scale(self, s: Pairs, y: Pairs) -> Float[Tensor, ""]:
        """gamma = sᵀy / yᵀy of the newest pair."""
        return (s[-1] @ y[-1]) / (y[-1] @ y[-1])

    def learn(self, s: Vector, y: Vector) -> None:
        for name, vector in (("s", s), ("y", y)):
            kept = self.memory.setdefault(name, [])
            kept.append(vector)
            del kept[: -self.param_groups[0]["pairs"]]
