"""Times the loss on a batch of actions, and learning to balance a pole for a stated number of steps."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.plugin import Bench, Case, Cost, Variant, hookimpl

from .model import Policies, Rewards, episodes, nothing, of_the_others, reinforce, rewards_to_come

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | float], Tensor]


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


def torchs_loss(logits: Tensor, action: Tensor, reward: Tensor, baseline: Tensor | float) -> Tensor:
    rows = F.cross_entropy(logits.flatten(0, -2), action.flatten(), reduction="none")
    return rows.view_as(reward) * (reward - baseline)


def policy(*weights: Tensor) -> nn.Module:
    network = Policies(1).to(weights[0])
    for own, weight in zip(network.parameters(), weights, strict=True):
        own.data.copy_(weight)
    return network


def torchs_policy(*weights: Tensor) -> nn.Module:
    """The same network made of `nn.Linear`."""
    hidden, hidden_bias, output, output_bias = (weight[0] for weight in weights)
    network = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2)).to(hidden)
    own = (hidden.T, hidden_bias[0], output.T, output_bias[0])
    for parameter, weight in zip(network.parameters(), own, strict=True):
        parameter.data.copy_(weight)
    return network


def balance(
    *given: Tensor,
    make: Callable[..., nn.Module],
    loss: Loss,
    baseline: Callable[[Rewards], Rewards],
    target: float,
    limit: int = 100,
) -> dict[str, int | bool]:
    """Update until the pole stays up for `target` steps on average over five updates.

    The simulation needs float32, and so does the policy.
    """
    *weights, seed = given
    weights = [weight.to(torch.promote_types(weight.dtype, torch.float32)) for weight in weights]
    network, generator = make(*weights), torch.Generator().manual_seed(int(seed))
    optimizer, lasted = torch.optim.Adam(network.parameters(), lr=0.03), list[float]()
    for _ in range(limit):
        states, actions, up = episodes(network, 1, 16, 200, generator)
        lasted.append(up.sum(0).mean().item())
        if len(lasted) >= 5 and sum(lasted[-5:]) / 5 >= target:
            return {"reached": True, "updates": len(lasted)}
        earned = rewards_to_come(up)
        optimizer.zero_grad()
        (loss(network(states), actions, earned, baseline(earned)) * up).sum().div(16 * 200).backward()
        optimizer.step()
    return {"reached": False, "updates": limit}


def balancing_case(target: float) -> Case:
    def inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
        """Weights and biases of the policy, initialised like torch's linear layers, and a seed."""
        uniform = (
            (2 * torch.rand(1, *shape, generator=generator) - 1) / fan**0.5
            for shape, fan in (((4, 32), 4), ((1, 32), 4), ((32, 2), 32), ((1, 2), 32))
        )
        return *uniform, torch.randint(2**31, (), generator=generator)

    ways = (
        ("without baseline", "naive", policy, reinforce, nothing),
        ("torch's layers and cross-entropy", "strong", torchs_policy, torchs_loss, of_the_others),
        ("eligibilities", "paper", policy, reinforce, of_the_others),
    )
    return Case(
        name="pole balanced",
        axes={"steps": target},
        inputs=inputs,
        variants=[
            Variant(
                name=name,
                role=role,
                call=partial(balance, make=make, loss=loss, baseline=baseline, target=target),
            )
            for name, role, make, loss, baseline in ways
        ],
        cost={"until": None},
    )


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
    yield balancing_case(bench.pick(smoke=5.0, quick=50.0, full=180.0))
