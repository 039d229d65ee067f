"""Equations 3 to 5, for SGD and AdamW steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..rmsprop import accumulate
from ..sgd import Optimizer, Vector


def schedule_free(y: Vector, z: Vector, direction: Vector, *, lr: float, beta: float, c: float) -> None:
    """Equations 3 to 5 in place, without storing x:

        yₜ = (1 − β) zₜ + β xₜ,   zₜ₊₁ = zₜ − lr d(yₜ),   xₜ₊₁ = (1 − c) xₜ + c zₜ₊₁.

    The first equation gives x from y and z. Inserted into the third, it gives yₜ₊₁ = (1 − c) yₜ + c zₜ − lr
    (1 − β (1 − c)) d.
    """
    y.lerp_(z, c)
    y -= lr * (1 - beta * (1 - c)) * direction
    z -= lr * direction


class ScheduleFreeSGD(Optimizer):
    """Between steps the weights hold y. `eval()` replaces y with the mean x, and `train()` restores y.

    beta    weight of the mean in y, above 0
    warmup  number of steps over which the learning rate rises to `lr`; these steps count less in the mean (cₜ
            ∝ lrₜ²)
    """

    memories: ClassVar[tuple[str, ...]] = ("z",)

    def __init__(
        self,
        weights: Iterable[Any],
        lr: float,
        beta: float = 0.9,
        *,
        warmup: int = 0,
        weight_decay: float = 0.0,
        **more: Any,
    ) -> None:
        if not 0 < beta <= 1:
            raise ValueError(
                f"beta = {beta}: it must be above 0 and at most 1, because x is computed from y and z"
            )
        super().__init__(weights, lr=lr, beta=beta, warmup=warmup, weight_decay=weight_decay, **more)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Raises RuntimeError between `eval()` and `train()`, when gradients would be computed at x."""
        if any(group.get("averaged") for group in self.param_groups):
            raise RuntimeError("the weights are the mean: call train() before the next step")
        return super().step(closure)

    @staticmethod
    def update(
        y: Vector,
        g: Vector,
        z: Vector,
        *,
        t: int,
        lr: float,
        c: float,
        beta: float,
        warmup: int,
        weight_decay: float,
    ) -> None:
        """lr and c are the values of this step, from `count`."""
        schedule_free(y, z, g + weight_decay * y, lr=lr, beta=beta, c=c)

    def begin(self, name: str, weight: Tensor) -> Tensor:
        return weight.detach().clone() if name == "z" else super().begin(name, weight)

    def count(self, state: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """The step, its learning rate, and cₜ = lrₜ² / Σ lrᵢ², the weight of the newest z in the mean."""
        numbers = super().count(state, settings)
        lr = settings["lr"] * min(numbers["t"] / max(settings["warmup"], 1), 1)
        total = state["squared rates"] = state.get("squared rates", 0.0) + lr**2
        return {**numbers, "lr": lr, "c": lr**2 / total if total else 0.0}

    def eval(self) -> None:
        """Set the weights to the mean x, for evaluation or for saving."""
        self._move(to_mean=True)

    def train(self) -> None:
        """Set the weights to y again."""
        self._move(to_mean=False)

    @torch.no_grad()
    def _move(self, *, to_mean: bool) -> None:
        for group in self.param_groups:
            if group.get("averaged", False) != to_mean:
                group["averaged"] = to_mean  # stored in the group, so that checkpoints contain it
                towards_z = 1 - 1 / group["beta"] if to_mean else 1 - group["beta"]
                for w in group["params"]:
                    if "z" in self.state[w]:
                        w.lerp_(self.state[w]["z"], towards_z)


class ScheduleFreeAdamW(ScheduleFreeSGD):
    """Algorithm 1: z takes Adam's steps without momentum, because averaging replaces momentum."""

    memories = ("z", "v")

    def __init__(
        self,
        weights: Iterable[Any],
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        warmup: int = 0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            weights, lr, betas[0], warmup=warmup, weight_decay=weight_decay, beta2=betas[1], eps=eps
        )

    @staticmethod
    def update(  # type: ignore[override]
        y: Vector,
        g: Vector,
        z: Vector,
        v: Vector,
        *,
        t: int,
        lr: float,
        c: float,
        beta: float,
        beta2: float,
        eps: float,
        warmup: int,
        weight_decay: float,
    ) -> None:
        """The direction is g / (√v̂ + eps), with v̂ = v / (1 − beta2ᵗ) after the update of v with g.

        This is the version in the paper (arXiv v4) and in the authors' package since November 2024. Earlier
        versions of the package multiplied the learning rate by √(1 − beta2ᵗ), which also gave early z less
        weight in the mean.
        """
        accumulate(v, g, decay=beta2)
        v_hat = v / (1 - beta2**t)
        direction = g / (v_hat.sqrt() + eps) + weight_decay * y
        schedule_free(y, z, direction, lr=lr, beta=beta, c=c)
