"""REINFORCE: make an action likelier by as much as its reward exceeds what was expected.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
doi 10.1007/BF00992696.

The problem. A reward says how good an action was, not which would have been better, and no gradient leads
through an action drawn at random, nor through the world that answered it.

The idea. The gradient of the logarithm of an action's probability (its "characteristic eligibility") times
the reward is, on average, the gradient of the expected reward (theorem 1). A baseline taken off the reward
changes nothing in that average, but much in the variance.

This file. The estimate as a loss, for one action and for episodes; the pole on a cart of Barto,
Sutton and Anderson (1983). The experiment holds the estimate against the exact gradient of a bandit, and
balances the pole with a baseline and without one, each at its own best rate.

Dimensions: batch (draws, or episodes), actions, time, state (of the cart: place, speed, angle, its speed).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from readtrack.plugin import (
    AtLeast,
    Bench,
    Bound,
    Break,
    Case,
    Claim,
    Cost,
    Draw,
    Exercise,
    Figure,
    Run,
    Try,
    Variant,
    hookimpl,
)


def reinforce(
    logits: Float[Tensor, "*batch actions"],
    action: Int[Tensor, "*batch"],
    reward: Float[Tensor, "*batch"],
    baseline: Float[Tensor, "*#batch"] | float = 0.0,
) -> Float[Tensor, "*batch"]:
    """The paper's update as a loss: its gradient is -(r - b) times the eligibility, that of ln Pr(action)."""
    chosen = logits.log_softmax(-1).gather(-1, action[..., None])[..., 0]
    return -(reward - baseline) * chosen


def exact_gradient(
    logits: Float[Tensor, " actions"], reward: Float[Tensor, " actions"]
) -> Float[Tensor, " actions"]:
    """The gradient of the expected reward of a bandit, every action weighed by its probability."""
    probability = logits.softmax(-1)
    return probability * (reward - probability @ reward)


def rewards_to_come(reward: Float[Tensor, "time batch"]) -> Float[Tensor, "time batch"]:
    """The sum of the rewards from each step on: what came before an action is none of its doing."""
    return reward.flip(0).cumsum(0).flip(0)


FORCE, CART, POLE, HALF_LENGTH, GRAVITY, TIME_STEP = 10.0, 1.0, 0.1, 0.5, 9.8, 0.02  # N, kg, kg, m, m/s², s


def push(state: Float[Tensor, "batch 4"], action: Int[Tensor, " batch"]) -> Float[Tensor, "batch 4"]:
    """A fiftieth of a second of the cart (1 kg) with its pole (0.1 kg, 1 m), pushed by 10 N to either side.

    Barto, Sutton and Anderson 1983, appendix, without friction; Euler's method.
    """
    _, speed, angle, turning = state.unbind(-1)
    force = (action * 2 - 1) * FORCE
    sine, cosine = angle.sin(), angle.cos()
    total, moment = CART + POLE, POLE * HALF_LENGTH
    pushed = (force + moment * turning.square() * sine) / total
    # 4 / 3: the pole's moment of inertia about its end is 4/3 m l².
    turn = (GRAVITY * sine - cosine * pushed) / (HALF_LENGTH * (4 / 3 - POLE * cosine.square() / total))
    speeding = pushed - moment * turn * cosine / total
    change = torch.stack((speed, speeding, turning, turn), -1)
    return state + TIME_STEP * change


def upright(state: Float[Tensor, "batch 4"]) -> Bool[Tensor, " batch"]:
    """The pole leans by less than 12 degrees and the cart is within 2.4 m of the middle."""
    return (state[:, 0].abs() <= 2.4) & (state[:, 2].abs() <= math.radians(12))


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return reinforce


NO_CREDIT = Break("credit shuffled", "Each episode is credited with the rewards of another one.")
WRONG_BASELINE = Break("no baseline", "The arm with a baseline has none.")

UNBIASED = Claim(
    name="unbiased with any baseline",
    sentence="The mean estimate is the gradient of the expected reward, whatever the baseline.",
    paper=Figure(
        "A theorem, for any baseline that does not depend on the action.", where="theorem 1", read="text"
    ),
    kind="theorem",
    rule=(
        Bound("error without baseline (standard errors)", "<=", 3.0),
        Bound("error with baseline (standard errors)", "<=", 3.0),
    ),
    control="the exact gradient",
    deviations="A bandit of five actions whose rewards lie about 10; the baseline is the expected reward.",
)

BALANCES = Claim(
    name="balances a pole",
    sentence="From nothing but how long the pole stayed up, a network learns to balance it.",
    paper=Figure(
        "No pole: simulations of other tasks are told without figures, and were slow where they succeeded.",
        where="section 8.1",
        read="text",
    ),
    rule=(Bound("steps up, own rewards - another's", ">=", 100.0, direction=30.0),),
    control="the same training, each episode credited with another one's rewards; the same rates",
    breaks=(NO_CREDIT,),
    chosen_on=(0, 1, 2),
    deviations="A pole on a cart, at most 200 steps; Adam, which the paper does not have.",
)

SOONER = Claim(
    name="sooner with a baseline",
    sentence="A baseline, which changes no mean, saves updates: the pole is balanced in fewer of them.",
    paper=Figure(
        "That an adaptive baseline can greatly speed convergence is said without a figure.",
        where="section 8.3",
        read="text",
    ),
    rule=(Bound("updates, without / with baseline", ">=", 1.5, direction=1.1, ratio=True),),
    control="no baseline; each arm at the rate of the best",
    control_reaches=(Bound("steps up without baseline", ">=", 150.0),),
    breaks=(WRONG_BASELINE,),
    chosen_on=(0, 1, 2),
    deviations="As above. The baseline is the mean of what the batch's other episodes still earned, which "
    "does not depend on the episode's own actions. Rewards to come replace those of the whole episode "
    "(theorem 2): what came before an action is none of its doing.",
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(UNBIASED):
        compare_estimates(run)
    if run.wants(BALANCES, SOONER):
        balance(run)


def compare_estimates(run: Run) -> None:
    """Many estimates at one point of a bandit, with and without baseline, against the exact gradient."""
    draws = run.pick(smoke=1000, quick=100_000, full=1_000_000)
    generator = run.generator("bandit")
    logits, reward = torch.randn(2, 5, generator=generator).to(run.device, run.dtype)
    reward = reward + 10
    probability = logits.softmax(-1)
    action = torch.multinomial(probability.cpu(), draws, True, generator=generator).to(run.device)
    exact, values = exact_gradient(logits, reward), {}
    for arm, baseline in (("without baseline", 0.0), ("with baseline", (probability @ reward).item())):
        each = logits.expand(draws, -1).clone().requires_grad_()
        loss = reinforce(each, action, reward[action], baseline).sum()
        estimates = -torch.autograd.grad(loss, each)[0]
        error = (estimates.mean(0) - exact) / (estimates.var(0) / draws).sqrt()
        run.metric("variance of the estimate", estimates.var(0).sum().item(), arm=arm)
        values[f"error {arm} (standard errors)"] = error.square().mean().sqrt().item()
    run.claim(UNBIASED, values)


def policy() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))


def episodes(
    network: nn.Module, count: int, limit: int, generator: torch.Generator
) -> tuple[Float[Tensor, "time {count} 4"], Int[Tensor, "time {count}"], Float[Tensor, "time {count}"]]:
    """Play until every pole is down: states, actions, and 1 for each step that a pole was up."""
    weight = next(network.parameters())
    state = ((torch.rand(count, 4, generator=generator) - 0.5) / 10).to(weight)
    up, played = upright(state), []
    with torch.no_grad():
        for _ in range(limit):
            probability = network(state).softmax(-1)[:, 1]
            action = (torch.rand(count, generator=generator).to(weight) < probability).long()
            played.append((state, action, up.to(weight)))
            state = push(state, action)
            up = up & upright(state)
            if not up.any():
                break
    states, actions, rewards = (torch.stack(parts) for parts in zip(*played, strict=True))
    return states, actions, rewards


Credit = Callable[[Float[Tensor, "time batch"], torch.Generator], Float[Tensor, "time batch"]]


def own(to_come: Float[Tensor, "time batch"], generator: torch.Generator) -> Float[Tensor, "time batch"]:
    return to_come


def another(to_come: Float[Tensor, "time batch"], generator: torch.Generator) -> Float[Tensor, "time batch"]:
    """Every episode is credited with what an episode drawn at random earned: the null of learning."""
    return to_come[:, torch.randperm(to_come.shape[1], generator=generator)]


def of_the_others(to_come: Float[Tensor, "time batch"]) -> Float[Tensor, "time batch"]:
    """The mean of what the other episodes still earned; an episode that is over earns nothing."""
    return (to_come.sum(1, keepdim=True) - to_come) / (to_come.shape[1] - 1)


def nothing(to_come: Float[Tensor, "time batch"]) -> Float[Tensor, "time batch"]:
    return torch.zeros_like(to_come)


@dataclass(frozen=True)
class Played:
    """How a training went.

    updates  until the mean over five updates stayed up for 180 steps; AtLeast where it never did
    up       steps up of the trained network, in episodes that chose nothing
    """

    updates: float | AtLeast
    up: float


def balance(run: Run) -> None:
    """Learn to balance, each arm at the best of the same rates."""
    credited = run.arms({"own rewards": own, "another's": another}, control="another's")
    baselines = run.arms(
        {"with baseline": of_the_others, "without baseline": nothing}, control="without baseline"
    )
    if run.without(WRONG_BASELINE.name):
        baselines["with baseline"] = nothing
    if run.without(NO_CREDIT.name):
        credited["own rewards"] = another
    arms = {
        "with baseline": (credited["own rewards"], baselines["with baseline"]),
        "without baseline": (own, baselines["without baseline"]),
        "another's rewards": (credited["another's"], of_the_others),
    }
    wanted = {
        "with baseline": (BALANCES, SOONER),
        "without baseline": (SOONER,),
        "another's rewards": (BALANCES,),
    }
    rates = run.pick(smoke=(0.03,), quick=RATES, full=RATES)
    best = {
        arm: run.sweep(
            arm, rates, partial(train, run, arm, *how), score="steps up while training", keep="highest"
        )
        for arm, how in arms.items()
        if run.wants(*wanted[arm])
    }
    for arm, found in best.items():
        run.metric("steps up, new episodes", found.result.up, arm=arm)
    with_it = best["with baseline"]
    if run.wants(BALANCES):
        shuffled = best["another's rewards"]
        gain = with_it.result.up - shuffled.result.up
        run.claim(BALANCES, {"steps up, own rewards - another's": gain}, tuned=[with_it, shuffled])
    if run.wants(SOONER):
        plain = best["without baseline"]
        values = {
            "updates, without / with baseline": ratio(plain.result.updates, with_it.result.updates),
            "steps up without baseline": plain.result.up,
        }
        run.claim(SOONER, values, tuned=[with_it, plain])


RATES = (0.01, 0.03, 0.1, 0.3)


def ratio(without: float | AtLeast, with_it: float | AtLeast) -> float | AtLeast:
    """How many times as many updates the arm without a baseline took; where it never arrived, a lower limit.

    Where the arm with one never arrived either, all that is known is that it took no fewer than it had.
    """
    limit = [one.value if isinstance(one, AtLeast) else one for one in (without, with_it)]
    return AtLeast(limit[0] / limit[1]) if isinstance(without, AtLeast) else limit[0] / limit[1]


def train(
    run: Run, arm: str, credit: Credit, baseline: Callable[[Tensor], Tensor], rate: float
) -> tuple[float, Played]:
    """The mean steps up over the training, to choose by, and how it went."""
    torch.manual_seed(run.seed)
    network = policy().to(run.device, run.dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    generator, shuffling = run.generator("episodes"), run.generator("shuffling")
    total = run.pick(smoke=2, quick=60, full=200)
    curve: list[float] = []
    run.phase("train")
    for step in run.steps(total, f"balancing, {arm}, rate {rate:g}"):
        states, actions, up = episodes(network, 16, 200, generator)
        earned = credit(rewards_to_come(up), shuffling)
        loss = (reinforce(network(states), actions, earned, baseline(earned)) * up).sum() / up.sum()
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm)
        curve.append(up.sum(0).mean().item())
        run.metric(f"steps up at rate {rate:g}", curve[-1], step=step, arm=arm)
    run.phase("evaluate")
    held_out = episodes(network, run.pick(smoke=4, quick=100, full=400), 200, run.generator("new episodes"))
    means = [sum(curve[max(i - 4, 0) : i + 1]) / min(i + 1, 5) for i in range(total)]
    arrived = next((i + 1 for i, steps in enumerate(means) if steps >= 180), None)
    return sum(curve) / total, Played(
        float(arrived) if arrived else AtLeast(float(total)), held_out[2].sum(0).mean().item()
    )


def one_at_a_time(logits: Tensor, action: Tensor, reward: Tensor) -> Tensor:
    """The update for one unit after another."""
    rows = zip(logits, action.tolist(), reward, strict=True)
    return torch.stack([r * (row.exp().sum().log() - row[chosen]) for row, chosen, r in rows])


def weighted_cross_entropy(logits: Tensor, action: Tensor, reward: Tensor) -> Tensor:
    return F.cross_entropy(logits, action, reduction="none") * reward


def cost(batch: int, actions: int, itemsize: int) -> dict[str, Cost]:
    """Forward, operations a logit: exponential, sum. Backward: exponential, difference, times the reward."""
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


# What to write oneself.
def of_actions(draw: Draw) -> Iterator[Try]:
    yield Try("no baseline", draw(3), draw.below(3), draw())
    yield Try("a baseline of 0.5", draw(2, 3), draw.below(3, 2), draw(2), 0.5)
    yield Try("a baseline for each", draw(4, 2), draw.below(2, 4), draw(4), draw(4))


EXERCISES = (
    Exercise(
        name="loss",
        of="reinforce",
        task="A loss whose gradient is minus the paper's update.",
        hints=(
            "Take the log-softmax of the action that was drawn.",
            "Multiply it by minus the reward above the baseline.",
        ),
        tries=of_actions,
    ),
    Exercise(
        name="exact gradient",
        of="exact_gradient",
        task="The gradient of a bandit's expected reward with respect to its logits.",
        hints=("Of p · r with p the softmax: p times the reward above its mean.",),
    ),
    Exercise(
        name="rewards to come",
        of="rewards_to_come",
        task="The return from each step on, without a discount.",
        hints=("A cumulative sum from the end: flip the time before and after.",),
    ),
    Exercise(
        name="baseline",
        of="of_the_others",
        task="A baseline for each episode that does not depend on its own actions.",
        hints=("Subtract the episode's own from the sum, and divide by how many others there are.",),
    ),
)
