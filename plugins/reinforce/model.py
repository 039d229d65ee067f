"""Implements the gradient estimate as a loss, the cart-pole environment, policies, and credit assignment."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def reinforce(
    logits: Float[Tensor, "*batch actions"],
    action: Int[Tensor, "*batch"],
    reward: Float[Tensor, "*batch"],
    baseline: Float[Tensor, "*#batch"] | float = 0.0,
) -> Float[Tensor, "*batch"]:
    """The paper's update as a loss. Its gradient is -(r - b) times the eligibility, ∇ ln Pr(action)."""
    chosen = logits.log_softmax(-1).gather(-1, action[..., None])[..., 0]
    return -(reward - baseline) * chosen


def exact_gradient(
    logits: Float[Tensor, " actions"], reward: Float[Tensor, " actions"]
) -> Float[Tensor, " actions"]:
    """The gradient of a bandit's expected reward, computed exactly as a sum over all actions."""
    probability = logits.softmax(-1)
    return probability * (reward - probability @ reward)


def rewards_to_come(reward: Float[Tensor, "*time_batch"]) -> Float[Tensor, "*time_batch"]:
    """The sum of the rewards from each step on. Earlier rewards do not depend on that step's action."""
    return reward.flip(0).cumsum(0).flip(0)


FORCE, CART, POLE, HALF_LENGTH, GRAVITY, TIME_STEP = 10.0, 1.0, 0.1, 0.5, 9.8, 0.02  # N, kg, kg, m, m/s², s


def push(state: Float[Tensor, "*batch 4"], action: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 4"]:
    """Simulate one step of 1/50 s.

    A force of 10 N to the left or right acts on a cart (1 kg) with a pole (0.1 kg, 1 m). The
    equations are from the appendix of Barto, Sutton and Anderson 1983, without friction. Integration is by
    Euler's method.
    """
    _, speed, angle, turning = state.unbind(-1)
    force = (action * 2 - 1) * FORCE
    sine, cosine = angle.sin(), angle.cos()
    total, moment = CART + POLE, POLE * HALF_LENGTH
    pushed = (force + moment * turning.square() * sine) / total
    # The pole's moment of inertia about its end is 4/3 m l².
    turn = (GRAVITY * sine - cosine * pushed) / (HALF_LENGTH * (4 / 3 - POLE * cosine.square() / total))
    speeding = pushed - moment * turn * cosine / total
    change = torch.stack((speed, speeding, turning, turn), -1)
    return state + TIME_STEP * change


def upright(state: Float[Tensor, "*batch 4"]) -> Bool[Tensor, "*batch"]:
    """Whether the pole leans by at most 12 degrees and the cart is within 2.4 m of the centre."""
    return (state[..., 0].abs() <= 2.4) & (state[..., 2].abs() <= math.radians(12))


class Policies(nn.Module):
    """Independent networks with one hidden layer, each with its own episodes."""

    def __init__(self, count: int) -> None:
        super().__init__()
        uniform = [torch.rand(count, *shape) * 2 - 1 for shape in ((4, 32), (1, 32), (32, 2), (1, 2))]
        # Initialised like torch's linear layers: ±1/√inputs.
        self.hidden, self.hidden_bias = (nn.Parameter(each / 4**0.5) for each in uniform[:2])
        self.output, self.output_bias = (nn.Parameter(each / 32**0.5) for each in uniform[2:])

    def forward(
        self, state: Float[Tensor, "*time networks batch 4"]
    ) -> Float[Tensor, "*time networks batch 2"]:
        return (state @ self.hidden + self.hidden_bias).tanh() @ self.output + self.output_bias


def episodes(
    network: nn.Module, networks: int, count: int, limit: int, generator: torch.Generator
) -> tuple[
    Float[Tensor, "time {networks} {count} 4"],
    Int[Tensor, "time {networks} {count}"],
    Float[Tensor, "time {networks} {count}"],
]:
    """Play until all poles have fallen, or for `limit` steps. Return states, actions and rewards.

    A reward is 1 while the pole is up, else 0.
    """
    weight = next(network.parameters())
    state = ((torch.rand(networks, count, 4, generator=generator) - 0.5) / 10).to(weight)
    up, played = upright(state), []
    with torch.no_grad():
        for _ in range(limit):
            probability = network(state).softmax(-1)[..., 1]
            action = (torch.rand(networks, count, generator=generator).to(weight) < probability).long()
            played.append((state, action, up.to(weight)))
            state = push(state, action)
            up = up & upright(state)
            if not up.any():
                break
    states, actions, rewards = (torch.stack(parts) for parts in zip(*played, strict=True))
    return states, actions, rewards


Rewards = Float[Tensor, "time networks batch"]
Credit = Callable[[Rewards, torch.Generator], Rewards]


def own(reward: Rewards, generator: torch.Generator) -> Rewards:
    return rewards_to_come(reward)


def another(reward: Rewards, generator: torch.Generator) -> Rewards:
    """Credit each episode with the rewards of another random episode, so there is nothing to learn."""
    return rewards_to_come(reward)[..., torch.randperm(reward.shape[-1], generator=generator)]


def one_step(reward: Rewards, generator: torch.Generator) -> Rewards:
    return reward


def discounted(reward: Rewards, generator: torch.Generator) -> Rewards:
    """Discounted rewards-to-go, with a discount factor of 0.97."""
    sums = [reward[-1]]
    for now in reward[:-1].flip(0):
        sums.append(now + 0.97 * sums[-1])
    return torch.stack(sums[::-1])


def of_the_others(to_come: Rewards) -> Rewards:
    """The mean rewards-to-go of the other episodes. A finished episode counts as zero."""
    return (to_come.sum(-1, keepdim=True) - to_come) / (to_come.shape[-1] - 1)


def half_of_the_others(to_come: Rewards) -> Rewards:
    return of_the_others(to_come) / 2


def of_whole_episodes(to_come: Rewards) -> Rewards:
    """The mean total reward of the other episodes, the same at every step."""
    return of_the_others(to_come)[:1].expand_as(to_come)


def nothing(to_come: Rewards) -> Rewards:
    return torch.zeros_like(to_come)
