"""Compares samples after training with the simple loss and with the bound, and saves pictures of sampling."""

import itertools
import math
from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack import data
from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Trial,
    at_least,
    hookimpl,
)
from readtrack.scores.digit_features import DigitFeatures, digit_features

from .model import Perceptron, PerSample, Schedule, Times, linear_schedule

NO_DRAWS = Break("sampling without noise", "In algorithm 2, each step returns the mean and adds no noise.")
HEAVY_START = Break(
    "bound's weights on the first steps",
    "The steps with the least noise, a twentieth of all, keep the bound's weights, and all others have equal "
    "weights.",
    "near miss",
)
BY_IMPORTANCE = Break(
    "bound with importance sampling",
    "The bound's weights are kept, and steps are sampled in proportion to these weights, which makes the "
    "gradient less noisy (compare Nichol and Dhariwal 2021, section 3.3, who sample by the losses).",
    "rival",
)

SAMPLES = Claim(
    name="simple loss against the bound",
    sentence="After 500 updates, the Fréchet distance between samples and real digits is at least 1.2 times "
    "as large for a network trained with the variational bound as for the same network trained with the "
    "simple loss.",
    paper=Figure(
        "On CIFAR-10, the FID is 3.17 with the simple loss and 13.51 with the bound.",
        where="table 2",
        read="table",
    ),
    rule=(at_least("Fréchet distance", "bound", 1.2, over="simple", toward=1.0),),
    control="the same network, initial weights, batches and noise, trained with the bound. Both losses are "
    "used at their best learning rate from the same grid",
    control_arm="bound",
    control_reaches=(at_least("Fréchet distance", "Gaussian", 1.0, over="bound"),),
    after_steps=500,
    breaks=(NO_DRAWS, HEAVY_START, BY_IMPORTANCE, UNTRAINED),
    chosen_on=(0, 1),
    deviations="The data are 8 × 8 digits, and the network is a residual perceptron instead of the U-Net. "
    "Training takes 500 Adam updates with a learning rate that falls to 0. Samples are generated with "
    "averaged weights (decay 0.98 instead of 0.9999), and the sampling variance is beta. The bound's weights "
    "are divided by their mean, and its last term has the weight of equation 12 instead of a discrete "
    "decoder. The learning rate is chosen on samples generated in a hundred steps. The verdict uses a "
    "thousand samples, generated in all thousand steps.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "inconclusive" (8 of 10 seeds). The verdict was based on '
            "300 samples generated with the final weights instead of averaged weights. The bound is "
            "unchanged. The near miss and the rival are new."
        ),
        (
            "Until 27 November 2026 the network trained with the bound only had to be better than "
            "independent pixels. It must now be better than a Gaussian with the digits' mean and "
            "covariance, whose distance is 0.51 on seed 0, where the network's is 0.40."
        ),
    ),
)

AT_ONCE = Claim(
    name="closed form of the forward process",
    sentence="Noise added step by step has the same distribution as noise added in one step.",
    paper=Figure("Equation 4.", where="section 2", read="text"),
    kind="identity",
    rule=(Bound("error of the signal and of the noise's variance", "<=", 1e-9),),
    control="noise added step by step, in float64",
)

RATES = (0.003, 0.0065, 0.014, 0.03)
DECAY = 0.98  # of the averaged weights
DDIM = 50  # steps
EVERY = 10  # sampling steps merged into one, for the samples that choose a learning rate
JUMPS = (50, 10, 1)  # sampling steps merged into one, for the judged samples; the claim uses the last
OVER_STEPS = "test Fréchet distance over steps back"
CHAINS = 2  # in the pictures


class Way(NamedTuple):
    """How the steps of the chain are weighted in training, and whether sampling adds noise.

    weigh          weight of each step's error
    by_importance  sample steps in proportion to their weights, and weight their errors equally
    """

    weigh: Callable[[Schedule, Times], PerSample]
    by_importance: bool = False
    noisy: bool = True


class Trained(NamedTuple):
    model: Perceptron
    noisy: bool


class Setting(NamedTuple):
    """Digits as rows in [-1, 1], the features for their Fréchet distance, and the schedule."""

    train: Float[Tensor, "train pixels"]
    choose: Float[Tensor, "choose pixels"]
    judge: Float[Tensor, "judge pixels"]
    eye: DigitFeatures
    schedule: Schedule

    def distance(self, made: Float[Tensor, "n pixels"], real: Float[Tensor, "m pixels"]) -> float:
        return self.eye.distance((made + 1) / 2, (real + 1) / 2)


@hookimpl
def experiment(run: Run) -> None:
    run.phase("setup")
    schedule = chain(run)
    if run.wants(AT_ONCE):
        run.claim(AT_ONCE, {"error of the signal and of the noise's variance": composed(schedule)})
    if run.wants(SAMPLES):
        compare(run, schedule)


def chain(run: Run) -> Schedule:
    """The paper's variances. A smoke run has fewer and larger ones, with the same total noise."""
    steps = run.pick(smoke=40, quick=1000, full=1000)
    return Schedule(linear_schedule(steps, 0.1 / steps, 20 / steps).beta.to(run.device))


def composed(schedule: Schedule) -> float:
    """Largest difference between equation 4 and step-by-step noise, in signal and noise variance."""
    signal, noise, worst = 1.0, 0.0, 0.0
    for beta, kept in zip(schedule.beta.tolist(), schedule.alpha_bar.tolist(), strict=True):
        signal, noise = signal * math.sqrt(1 - beta), (1 - beta) * noise + beta
        worst = max(worst, abs(signal - math.sqrt(kept)), abs(noise - (1 - kept)))
    return worst


def equal_weights(schedule: Schedule, t: Times) -> PerSample:
    """Equation 14."""
    return torch.ones_like(t, dtype=schedule.beta.dtype)


def bound_weights(schedule: Schedule, t: Times) -> PerSample:
    """Equation 12, divided by its mean over the steps, so that both arms' learning rates are comparable."""
    every = schedule.bound_weight(torch.arange(len(schedule.beta), device=t.device))
    return schedule.bound_weight(t) / every.mean()


def heavy_start(schedule: Schedule, t: Times) -> PerSample:
    """For a break: the bound's weights on the first twentieth of the steps only, divided by their mean.

    The paper's section 3.4 says that the simple loss helps because it reduces the weights of these steps.
    """
    steps = torch.arange(len(schedule.beta), device=t.device)
    every = bound_weights(schedule, steps)
    every[len(steps) // 20 :] = 1
    return (every / every.mean())[t]


def compare(run: Run, schedule: Schedule) -> None:
    """Compare both weightings, each at its best learning rate."""
    at_most = run.pick(smoke=5_000, quick=5_000, full=None)
    source = run.source("images", needs="classes", at_most=at_most)
    source = source.grey(run.pick(smoke=14, quick=14, full=28))
    rows = (2 * images.flatten(1).to(run.device, run.dtype) - 1 for images, _ in source.parts)
    setting = Setting(*rows, digit_features(run, source), schedule)
    train_on, judge = setting.train, setting.judge
    references = {
        name: setting.distance(made.clamp(-1, 1), judge) for name, made in gaussians(run, train_on).items()
    }
    table = run.compare(
        SAMPLES,
        arms={"simple": Arm(Way(equal_weights)), "bound": Arm(Way(bound_weights))},
        attempt=train,
        read=judged,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation Fréchet distance",
        references={name: {"Fréchet distance": apart} for name, apart in references.items()},
        breaks={
            NO_DRAWS.name: {"simple": Arm(Way(equal_weights, noisy=False))},
            HEAVY_START.name: {"simple": Arm(Way(heavy_start))},
            BY_IMPORTANCE.name: {"simple": Arm(Way(bound_weights, by_importance=True))},
        },
        world=setting,
        unequal={
            "simple": "how much they draw: only the rival differs, because it samples steps by their weights"
        },
    )
    for name, apart in references.items():
        run.metric("test Fréchet distance", apart, arm=name)
    run.metric("test Fréchet distance", setting.distance(train_on, judge), arm="training digits")
    run.headline(OVER_STEPS)
    if not (run.null or run.broken):
        draw(run, setting, table.sweeps["simple"].chosen.model)


def gaussians(run: Run, rows: Float[Tensor, "train pixels"]) -> dict[str, Float[Tensor, "n pixels"]]:
    """Samples of Gaussians with the digits' mean and variances, or with their mean and covariance."""
    mean, draws = rows.mean(0), run.data("pixels", "judge")
    noise = torch.randn(how_many(run), rows.shape[1], generator=draws).to(rows)
    shares = torch.randn(how_many(run), len(rows), generator=draws).to(rows)  # of each digit in each sample
    return {
        "independent pixels": mean + rows.std(0) * noise,
        "Gaussian": mean + shares @ (rows - mean) / len(rows) ** 0.5,
    }


def how_many(run: Run) -> int:
    """Samples of each arm."""
    return run.pick(smoke=50, quick=1000, full=2000)


def train(at: Trial, way: Way, rate: float) -> tuple[float, Trained]:
    """Algorithm 1 with weighted errors. Returns the Fréchet distance of few-step samples to the validation
    digits, and the averaged network."""
    run, setting = at.run, at.world
    schedule, count = setting.schedule, len(setting.schedule.beta)
    model = Perceptron(setting.train.shape[1]).to(run.device, run.dtype)
    averaged = deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    steps = at.length(run.pick(smoke=4, quick=500, full=10_000))
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    batches, name = at.generator("batches"), f"{at.name}, rate {rate:g}"
    every = way.weigh(schedule, torch.arange(count, device=run.device)).float().cpu()
    run.phase("train")
    for step in at.steps(steps, name, state=(model, averaged, optimizer, decay)):
        x0 = setting.train[torch.randint(len(setting.train), (128,), generator=batches)]
        if way.by_importance:
            t = torch.multinomial(every, 128, replacement=True, generator=batches).to(x0.device)
            weight = x0.new_ones(128)
        else:
            t = torch.randint(count, (128,), generator=batches).to(x0.device)
            weight = way.weigh(schedule, t).to(x0)
        noise = torch.randn(x0.shape, generator=batches).to(x0)
        error = (model(schedule.add_noise(x0, t, noise), t) - noise).square().mean(1)
        at.descend((weight * error).mean(), optimizer, step=step, metric="loss", arm=name)
        decay.step()
        average(averaged, model, min(DECAY, (1 + step) / (10 + step)))
    run.phase("evaluate")
    few = ancestral(at.generator("samples"), averaged, schedule, how_many(run), every=EVERY, noisy=way.noisy)
    return setting.distance(few[-1], setting.choose), Trained(averaged, way.noisy)


@torch.no_grad()
def average(averaged: Perceptron, model: Perceptron, decay: float) -> None:
    """The exponential moving average of the weights (appendix B), in place."""
    for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)


def judged(at: Trial, found: Sweep[Trained]) -> dict[str, float]:
    """The Fréchet distance of samples with all steps. Also plots the distance for fewer steps."""
    setting, (model, noisy) = at.world, found.chosen
    steps, distance = len(setting.schedule.beta), math.nan
    for every in JUMPS:
        if every < steps:
            draws = at.run.data("samples", "judge")
            samples = ancestral(draws, model, setting.schedule, how_many(at.run), every=every, noisy=noisy)[
                -1
            ]
            distance = setting.distance(samples, setting.judge)
            at.metric(OVER_STEPS, distance, step=steps // every)
    at.metric("test Fréchet distance", distance)
    return {"Fréchet distance": distance}


@torch.no_grad()
def ancestral(
    generator: torch.Generator,
    model: Perceptron,
    schedule: Schedule,
    count: int,
    *,
    every: int = 1,
    noisy: bool = True,
) -> list[Float[Tensor, "count pixels"]]:
    """Algorithm 2: the samples after every step, from noise to digits.

    every  number of steps merged into one, with their total noise
    noisy  whether the steps add noise; without noise (a break) they take the mean
    """
    times = torch.arange(every - 1, len(schedule.beta), every, device=schedule.beta.device)
    steps = schedule.of(times)
    weight = model.into.weight
    shape = count, weight.shape[1]
    x = torch.randn(shape, generator=generator).to(weight)
    states = [x]
    for step in reversed(range(len(times))):
        t = torch.full((count,), step, device=x.device)
        draw = torch.randn(shape, generator=generator).to(x)
        noise = model(x, times[step : step + 1])  # the time is embedded once for all rows
        x = steps.step(x, t, noise, draw if noisy else torch.zeros_like(draw))
        states.append(x)
    return [*states[:-1], x.clamp(-1, 1)]


@torch.no_grad()
def ddim(
    run: Run, model: Perceptron, schedule: Schedule, count: int, steps: int
) -> list[Float[Tensor, "count pixels"]]:
    """Samples by DDIM (Song et al. 2020), which adds no noise, after every step from noise to digits."""
    weight = model.into.weight
    x = torch.randn(count, weight.shape[1], generator=run.generator("samples")).to(weight)
    states = [x]
    times = torch.linspace(len(schedule.beta) - 1, -1, steps + 1).round().long().to(x.device)
    for now, before in itertools.pairwise(times.split(1)):
        x = schedule.ddim_step(x, now.expand(count), before.expand(count), model(x, now))
        states.append(x)
    return [*states[:-1], x.clamp(-1, 1)]


def draw(run: Run, setting: Setting, model: Perceptron) -> None:
    """Save chains from noise to digits, with the predicted digit below each step (as in figure 6)."""
    schedule, count = setting.schedule, len(setting.schedule.beta)
    states = ancestral(run.generator("chains"), model, schedule, CHAINS)
    shown = [0, *(round(part * count) for part in (0.4, 0.6, 0.75, 0.85, 0.95)), count]
    rows = []
    for digit in range(CHAINS):
        expected = []
        for index in shown:
            t = torch.tensor([max(count - 1 - index, 0)], device=run.device)
            x = states[index][digit : digit + 1]
            with torch.no_grad():
                expected.append(schedule.predict_x0(x, t, model(x, t)) if index < count else x)
        rows += [torch.cat([states[index][digit : digit + 1] for index in shown]), torch.cat(expected)]
    run.image(
        "digits out of noise",
        pictures(torch.cat(rows)),
        columns=[str(count - index) for index in shown],
        rows=["noisy", "expected"] * CHAINS,
        caption="Sampling chains, with the number of remaining steps. Below each state is the digit that "
        "the network predicts.",
    )
    steps = run.pick(smoke=4, quick=DDIM, full=DDIM)
    states = ddim(run, model, schedule, CHAINS, steps)
    shown = [round(part * steps / 6) for part in range(7)]
    run.image(
        "digits by DDIM",
        pictures(torch.cat([states[index][digit : digit + 1] for digit in range(CHAINS) for index in shown])),
        columns=[str(steps - index) for index in shown],
        caption=f"Chains of the same network in {steps} DDIM steps, with the number of remaining steps. "
        "DDIM adds no noise.",
    )
    few = ancestral(run.generator("samples"), model, schedule, 7)[-1]
    nearest = setting.train[torch.cdist(few, setting.train).argmin(1)]
    run.image(
        "samples",
        pictures(torch.cat((few, nearest))),
        columns=len(few),
        rows=["sample", "nearest"],
        caption="Samples generated with all steps. Below each is the nearest training digit.",
    )


def pictures(x: Float[Tensor, "n pixels"]) -> Float[Tensor, "n 1 height width"]:
    return data.tiles((x + 1) / 2)
