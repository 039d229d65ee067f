"""Training on shuffled targets, the built-in break "shuffled targets".

Losses of `torch.nn.functional` that are computed while gradients are recorded get their targets in random
order, so that a row's target is unrelated to its input. Losses written by hand are not detected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LOSSES = frozenset(
    {
        F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        F.cross_entropy,
        F.gaussian_nll_loss,
        F.huber_loss,
        F.kl_div,
        F.l1_loss,
        F.mse_loss,
        F.multi_margin_loss,
        F.multilabel_soft_margin_loss,
        F.nll_loss,
        F.poisson_nll_loss,
        F.smooth_l1_loss,
        F.soft_margin_loss,
    }
)


class ShuffledTargets(TorchFunctionMode):
    """In this mode, losses receive their targets in an order drawn from `generator`.

    done  number of losses whose targets differed and were therefore shuffled
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.done = 0
        self._generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _LOSSES and torch.is_grad_enabled():
            if "target" in given:
                given["target"] = self._shuffled(given["target"])
            else:
                args = (args[0], self._shuffled(args[1]), *args[2:])
        return func(*args, **given)

    def _shuffled(self, target: Tensor) -> Tensor:
        """Shuffle the single values of class targets, and whole rows of other targets."""
        whole = not target.is_floating_point() or target.dim() == 0
        rows = target.reshape(-1) if whole else target
        if bool((rows == rows[:1]).all()):
            return target
        self.done += 1
        order = torch.randperm(len(rows), generator=self._generator).to(target.device)
        return rows[order].view_as(target)
