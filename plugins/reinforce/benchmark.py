"""Times the loss on a batch of actions, compared with reward-weighted cross-entropy."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack.plugin import (
    Bench,
    Case,
    Cost,
    Variant,
    hookimpl,
)

from .model import reinforce


def one_at_a_time(logits: Tensor, action: Tensor, reward: Tensor) -> Tensor:
    """Compute the loss for one action after another."""
    rows = zip(logits, action.tolist(), reward, strict=True)
    return torch.stack([r * (row.exp().sum().log() - row[chosen]) for row, chosen, r in rows])


def weighted_cross_entropy(logits: Tensor, action: Tensor, reward: Tensor) -> Tensor:
    return F.cross_entropy(logits, action, reduction="none") * reward


def cost(batch: int, actions: int, itemsize: int) -> dict[str, Cost]:
    """The cost of the loss, counted in operations per logit.

    The forward pass computes an exponential and a sum. The backward pass computes an exponential, a
    difference and a product with the reward.
    """
    logits = batch * actions
    moved = (logits + 2 * batch) * itemsize + 8 * batch
    return {
        "forward": Cost(flops=2 * logits + 3 * batch, bytes=moved),
        "forward+backward": Cost(flops=5 * logits + 5 * batch, bytes=2 * moved),
    }


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    sizes = bench.pick(smoke=((5, 3),), quick=((512, 64),), full=((4096, 64), (65_536, 64)))
    for batch, actions in sizes:
        yield Case(
            name="policy gradient",
            axes={"batch": batch, "actions": actions},
            inputs=lambda g, batch=batch, actions=actions: (
                torch.randn(batch, actions, generator=g),
                torch.randint(actions, (batch,), generator=g),
                torch.randn(batch, generator=g),
            ),
            variants=(
                Variant(name="one at a time", role="naive", call=one_at_a_time),
                Variant(name="torch cross_entropy", role="strong", call=weighted_cross_entropy),
                Variant(name="eligibilities", role="paper", call=reinforce),
            ),
            cost=cost(batch, actions, bench.dtype.itemsize),
        )
