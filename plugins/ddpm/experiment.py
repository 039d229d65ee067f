"""The simple loss against the weights of the bound, by the samples; digits out of noise, drawn."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.scores.digit_features import DigitFeatures, digit_features

from .model import Perceptron, PerSample, Schedule, Times, like, linear_schedule

NO_DRAWS = Break(
    "steps without noise", "The steps back take the mean alone, and add no noise of their own (algorithm 2)."
)

SAMPLES = Claim(
    name="the simple loss samples better",
    sentence="The same network draws digits closer to real ones when the steps' weights are dropped from the "
    "bound that it is trained by.",
    paper=Figure(
        "FID 3.17 by the simple loss, 13.51 by the bound, on CIFAR-10.", where="table 2", read="table"
    ),
    rule=(Bound("Fréchet distance, bound's / simple loss's", ">=", 1.2, direction=1.0, ratio=True),),
    control="the weights of the bound: the same network, weights, batches, noise and rates, each at its best",
    control_reaches=(Bound("Fréchet distance, independent pixels' / bound's", ">=", 1.2),),
    breaks=(NO_DRAWS,),
    chosen_on=(0, 1),
    deviations="8 × 8 digits, a residual perceptron in place of the U-Net, 500 updates by Adam with "
    "its rate falling to 0, no average of the weights, steps back with the variance beta. The weights of the "
    "bound are divided by their mean. A rate is chosen by samples of a hundred steps, what is judged is made "
    "in all thousand. So short a training need not show what a long one does.",
)

AT_ONCE = Claim(
    name="noise at once",
    sentence="Noise added step by step has the distribution of noise added at once.",
    paper=Figure("Equation 4.", where="section 2", read="text"),
    kind="identity",
    rule=(Bound("error of the signal and of the noise's variance", "<=", 1e-9),),
    control="every step in turn, in float64",
)

RATES = (0.005, 0.015, 0.045)
DDIM = 50  # steps
EVERY = 10  # steps in one, of the samples that a rate is chosen by
JUMPS = (100, 50, 20, 10, 5, 2, 1)  # steps in one, of the samples that are judged; the claim is on the last
OVER_STEPS = "Fréchet distance on judge over steps back"
CHAINS = 2  # drawn
Weight = Callable[[Times], PerSample]


class Trained(NamedTuple):
    """A network, its samples in [-1, 1], and their Fréchet distance from the judging digits."""

    model: Perceptron
    samples: Float[Tensor, "n 64"]
    distance: float


class Setting(NamedTuple):
    """Digits as rows in [-1, 1], what judges their distance, and the chain."""

    train: Float[Tensor, "train 64"]
    choose: Float[Tensor, "choose 64"]
    judge: Float[Tensor, "judge 64"]
    eye: DigitFeatures
    schedule: Schedule

    def distance(self, made: Float[Tensor, "n 64"], real: Float[Tensor, "m 64"]) -> float:
        return self.eye.distance(*((one.view(-1, 8, 8) + 1) / 2 for one in (made, real)))


@hookimpl
def experiment(run: Run) -> None:
    run.phase("setup")
    schedule = chain(run)
    if run.wants(AT_ONCE):
        run.claim(AT_ONCE, {"error of the signal and of the noise's variance": composed(schedule)})
    if run.wants(SAMPLES):
        compare(run, schedule)


def chain(run: Run) -> Schedule:
    """The paper's variances; in a smoke run fewer and larger ones, as much noise in all."""
    steps = run.pick(smoke=40, quick=1000, full=1000)
    return Schedule(linear_schedule(steps, 0.1 / steps, 20 / steps).beta.to(run.device))


def composed(schedule: Schedule) -> float:
    """How far equation 4 is from adding the noise step by step: signal, and variance of the noise."""
    signal, noise, worst = 1.0, 0.0, 0.0
    for beta, kept in zip(schedule.beta.tolist(), schedule.alpha_bar.tolist(), strict=True):
        signal, noise = signal * math.sqrt(1 - beta), (1 - beta) * noise + beta
        worst = max(worst, abs(signal - math.sqrt(kept)), abs(noise - (1 - kept)))
    return worst


def equal_weights(schedule: Schedule, t: Times) -> PerSample:
    """Equation 14."""
    return torch.ones_like(t, dtype=schedule.beta.dtype)


def bound_weights(schedule: Schedule, t: Times) -> PerSample:
    """Equation 12, over the mean of all steps': the rates of both arms are of the same size."""
    every = schedule.bound_weight(torch.arange(len(schedule.beta), device=t.device))
    return schedule.bound_weight(t) / every.mean()


def compare(run: Run, schedule: Schedule) -> None:
    """Both weights at every rate; each claim takes the best rate by its own measure."""
    x = 2 * data.digits()[0].flatten(1).to(run.device, run.dtype) - 1
    parts = data.parts(x, seed=run.seed)
    setting = Setting(parts.train[0], parts.choose[0], parts.judge[0], digit_features(run), schedule)
    arms = run.arms({"simple": equal_weights, "bound": bound_weights}, control="bound")
    rates = run.pick(smoke=(0.005,), quick=RATES, full=RATES)
    best: dict[str, Best[Perceptron]] = {}
    found: dict[str, Trained] = {}
    for arm, weigh in arms.items():
        best[arm] = run.sweep(
            arm,
            rates,
            lambda rate, arm=arm, weigh=weigh: train(run, arm, setting, weigh, rate),
            score="Fréchet distance on choose",
        )
        noisy = not (arm == "simple" and run.without(NO_DRAWS.name))
        found[arm] = sampled(run, arm, setting, best[arm].result, noisy)
    simple, bound = (found[arm].distance for arm in arms)
    noise = torch.randn(len(found["simple"].samples), 64, generator=run.generator("pixels"))
    pixels = setting.train.mean(0) + setting.train.std(0) * noise.to(setting.train)
    apart = setting.distance(pixels.clamp(-1, 1), setting.judge)
    floor = setting.distance(setting.train, setting.judge)
    named = {"simple": simple, "bound": bound, "independent pixels": apart, "training digits": floor}
    for arm, value in named.items():
        run.metric("Fréchet distance on judge", value, arm=arm)
    values = {
        "Fréchet distance, bound's / simple loss's": bound / simple,
        "Fréchet distance, independent pixels' / bound's": apart / bound,
    }
    run.claim(SAMPLES, values, tuned=list(best.values()))
    run.headline(OVER_STEPS)
    if not (run.null or run.broken):
        draw(run, setting, found["simple"])


def train(
    run: Run, arm: str, setting: Setting, weigh: Callable[[Schedule, Times], PerSample], rate: float
) -> tuple[float, Perceptron]:
    """Algorithm 1, each step's error times its weight; the distance of samples of fewer steps on `choose`."""
    torch.manual_seed(run.seed)
    schedule, count = setting.schedule, len(setting.schedule.beta)
    model = Perceptron(64).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    generator, steps = run.generator("batches"), run.pick(smoke=4, quick=500, full=10_000)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        x0 = setting.train[torch.randint(len(setting.train), (128,), generator=generator)]
        t = torch.randint(count, (128,), generator=generator).to(x0.device)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        error = (model(schedule.add_noise(x0, t, noise), t) - noise).square().mean(1)
        loss = (weigh(schedule, t).to(error) * error).mean()
        run.descend(loss, optimizer, step=step, metric=f"loss, rate {rate:g}", arm=arm)
        decay.step()
    run.phase("evaluate")
    count = run.pick(smoke=50, quick=300, full=2000)
    few = ancestral(run, model, schedule, count, every=EVERY)[-1]
    return setting.distance(few, setting.choose), model


def sampled(run: Run, arm: str, setting: Setting, model: Perceptron, noisy: bool = True) -> Trained:
    """The network with the samples of all steps, judged; on the way there those of fewer steps."""
    count, steps = run.pick(smoke=50, quick=300, full=2000), len(setting.schedule.beta)
    for every in JUMPS:
        if every < steps:
            samples = ancestral(run, model, setting.schedule, count, every=every, noisy=noisy)[-1]
            distance = setting.distance(samples, setting.judge)
            run.metric(OVER_STEPS, distance, step=steps // every, arm=arm)
    return Trained(model, samples, distance)


@torch.no_grad()
def ancestral(
    run: Run, model: Perceptron, schedule: Schedule, count: int, *, every: int = 1, noisy: bool = True
) -> list[Float[Tensor, "count 64"]]:
    """Algorithm 2: the samples after every step, from noise to digits.

    every  one step in place of so many, with the noise of all of them
    noisy  the steps add noise; without, which is a break, they take the mean
    """
    times = torch.arange(every - 1, len(schedule.beta), every, device=schedule.beta.device)
    steps = schedule.of(times)
    generator, weight = run.generator("samples"), model.into.weight
    x = torch.randn(count, 64, generator=generator).to(weight)
    states = [x]
    for step in reversed(range(len(times))):
        t = torch.full((count,), step, device=x.device)
        draw = torch.randn(count, 64, generator=generator).to(x)
        noise = model(x, times[step : step + 1])  # the time is embedded once for all
        x = steps.step(x, t, noise, draw if noisy else torch.zeros_like(draw))
        states.append(x)
    return [*states[:-1], x.clamp(-1, 1)]


@torch.no_grad()
def ddim(
    run: Run, model: Perceptron, schedule: Schedule, count: int, steps: int
) -> list[Float[Tensor, "count 64"]]:
    """The same network's way back in few steps without draws (Song et al. 2020), from the same noise; the
    data that each step expects are clamped."""
    x = torch.randn(count, 64, generator=run.generator("samples")).to(model.into.weight)
    states = [x]
    times = torch.linspace(len(schedule.beta) - 1, -1, steps + 1).round().long().to(x.device)
    for now, before in itertools.pairwise(times.split(1)):
        t = now.expand(count)
        # At first a small error in the noise is a large one in the data that it leads to.
        x0 = schedule.predict_x0(x, t, model(x, now)).clamp(-1, 1)
        kept = schedule.alpha_bar[t]
        noise = (x - like(kept.sqrt(), x) * x0) / like((1 - kept).sqrt(), x)
        x = schedule.ddim_step(x, t, before.expand(count), noise)
        states.append(x)
    return [*states[:-1], x.clamp(-1, 1)]


def draw(run: Run, setting: Setting, trained: Trained) -> None:
    """Digits out of noise, with the digit that is expected at each step under them (as in figure 6)."""
    schedule, count = setting.schedule, len(setting.schedule.beta)
    states = ancestral(run, trained.model, schedule, CHAINS)
    shown = [0, *(round(part * count) for part in (0.4, 0.6, 0.75, 0.85, 0.95)), count]
    rows = []
    for digit in range(CHAINS):
        expected = []
        for index in shown:
            t = torch.tensor([max(count - 1 - index, 0)], device=run.device)
            x = states[index][digit : digit + 1]
            with torch.no_grad():
                expected.append(schedule.predict_x0(x, t, trained.model(x, t)) if index < count else x)
        rows += [torch.cat([states[index][digit : digit + 1] for index in shown]), torch.cat(expected)]
    left = ", ".join(str(count - index) for index in shown)
    run.image(
        "digits out of noise",
        pictures(torch.cat(rows)),
        columns=len(shown),
        caption=f"Two chains, {left} steps before their end; under each what the network expects of it.",
    )
    steps = run.pick(smoke=4, quick=DDIM, full=DDIM)
    states = ddim(run, trained.model, schedule, CHAINS, steps)
    shown = [round(part * steps / 6) for part in range(7)]
    run.image(
        "digits by DDIM",
        pictures(torch.cat([states[index][digit : digit + 1] for digit in range(CHAINS) for index in shown])),
        columns=len(shown),
        caption=f"The same network and first noise in {steps} steps of DDIM, which add no noise.",
    )
    few = trained.samples[:7]
    nearest = setting.train[torch.cdist(few, setting.train).argmin(1)]
    run.image(
        "samples",
        pictures(torch.cat((few, nearest))),
        columns=len(few),
        caption="Samples by all steps, and below each the nearest training digit.",
    )


def pictures(x: Float[Tensor, "n 64"]) -> Float[Tensor, "n 1 36 36"]:
    """Ink is black, a pixel becomes 4 × 4, and a frame parts the digits."""
    large = ((1 - x.float()) / 2).view(-1, 1, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return F.pad(large.clamp(0, 1), (2, 2, 2, 2), value=0.8)
