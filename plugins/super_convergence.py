"""Super-convergence: one cycle of the learning rate, up to values that look far too large.

Smith and Topin 2017, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
arXiv 1708.07120.

The problem. The usual schedule keeps the rate for long and divides it by ten where the loss stands still:
tens of thousands of steps, most of them on plateaus.

The idea. One cycle for the whole training: the rate rises linearly to a peak that a range test finds, ten
times or more above the usual one, falls back as it rose, and ends in a short tail far below; the momentum
moves the other way. High rates are said to regularise, so that other regularisation is to be reduced, and to
bring the same accuracy in a tenth of the steps.

This file. The schedule, as a function of the step and as a scheduler of torch's. The experiment holds one
cycle beside the usual steps and beside a cosine from an ordinary rate, which also falls to nothing within the
budget: what a cycle has of its own is what it has over that one. What this toy lacks: hours of training,
where the usual schedule idles on plateaus, and images that need regularising.

Dimensions: steps.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from readtrack import data
from readtrack.plugin import (
    AtLeast,
    Bench,
    Best,
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

from .batchnorm import BatchNorm
from .batchnorm.convolutions import Scores, network, noisy, score

NO_FALL = Break("no fall", "The rate rises and stays up.")

FASTER = Claim(
    name="an order of magnitude",
    sentence="One cycle reaches in T steps what the usual schedule takes many times T for.",
    paper=Figure(
        "92.4 % on CIFAR-10 in 10,000 steps, 91.2 % in 80,000 the usual way",
        where="figure 1 a",
        read="text",
    ),
    rule=(Bound("steps for the same loss, usual / one cycle", ">=", 3.0, direction=1.2, ratio=True),),
    control="a rate that falls to a tenth at half of the steps, and to a hundredth at three quarters",
    control_reaches=(Bound("error, usual, longest", "<=", 0.15),),
    breaks=(NO_FALL,),
    shortcuts=("steps for the same loss, usual / cosine",),
    chosen_on=(0,),
    deviations="A deep convolutional network with batch normalisation on 8 × 8 digits with noise, 60 steps; "
    "the usual schedule for 30 to 240 steps, each at the best of four rates; the steps at which it has one "
    "cycle's held-out loss are read off between its budgets, in logarithms.",
)

CYCLE = Claim(
    name="better than falling alone",
    sentence="At equal steps one cycle ends lower than a rate that only falls.",
    paper=Figure("Large rates are what regularises and speeds up", where="abstract", read="abstract"),
    rule=(Bound("loss, one cycle / cosine", "<=", 0.95, direction=1.0, ratio=True),),
    control="a cosine from an ordinary rate to nothing, with the same steps and rates to choose from",
    control_reaches=(Bound("error, cosine", "<=", 0.3),),
    breaks=(NO_FALL,),
    chosen_on=(0,),
    deviations="As above, at 60 steps. The cosine is not one of the paper's rivals.",
)


def one_cycle(
    step: int | float, steps: int, *, peak: float, start: float = 0.1, tail: float = 0.1, end: float = 0.01
) -> tuple[float, float]:
    """Rate and momentum at `step` of `steps` (section 3).

    start  the rate at the beginning, and before the tail, as a part of the peak
    tail   part of the steps in which the rate falls from there on
    end    the last rate, as a part of the first
    """
    top, turn = (1 - tail) * (steps - 1) / 2, (1 - tail) * (steps - 1)
    if step > turn:
        return peak * start * (1 + (end - 1) * (step - turn) / (steps - 1 - turn)), 0.95
    height = 1 - abs(step - top) / top
    return peak * (start + (1 - start) * height), 0.95 - 0.1 * height


class OneCycle(LRScheduler):
    """`one_cycle` for every group of an optimiser with a momentum; further settings as there."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, steps: int, *, peak: float, **settings: float
    ) -> None:
        self.steps, self.peak, self.settings = steps, peak, settings
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        step = min(self.last_epoch, self.steps - 1)
        rate, momentum = one_cycle(step, self.steps, peak=self.peak, **self.settings)
        for group in self.optimizer.param_groups:
            group["momentum"] = momentum
        return [rate for _ in self.optimizer.param_groups]


@hookimpl
def implementation() -> type[LRScheduler]:
    return OneCycle


# Experiment: a schedule gives the rate and the momentum at a step of a number of steps

Schedule = Callable[[int | float, int, float], tuple[float, float]]


def cycle(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    return one_cycle(step, steps, peak=rate)


def usual(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    """Section 5: a tenth at half of the steps, a hundredth at three quarters."""
    return rate * 0.1 ** ((step >= steps / 2) + (step >= steps * 3 / 4)), 0.9


def cosine(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    return rate * (1 + math.cos(math.pi * step / steps)) / 2, 0.9


def rise(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    """The first half of a cycle, and then its peak."""
    return one_cycle(min(step, 0.45 * (steps - 1)), steps, peak=rate)


@hookimpl
def experiment(run: Run) -> None:
    schedules: dict[str, Schedule] = {
        "one cycle": rise if run.without(NO_FALL.name) else cycle,
        "usual": usual,
        "cosine": cosine,
    }
    arms = run.arms(schedules, control="usual")
    rates = run.pick(smoke=(0.1,), quick=(0.03, 0.1, 0.3, 1.0), full=(0.03, 0.1, 0.3, 1.0, 3.0))
    middle = run.pick(smoke=4, quick=60, full=400)
    longer = (middle // 2, 2 * middle, 4 * middle) if run.wants(FASTER) else ()
    best: dict[tuple[str, int], Best[Scores]] = {}
    for arm, schedule in arms.items():
        for steps in sorted((middle, *(longer if arm == "usual" else ()))):
            best[arm, steps] = run.sweep(
                f"{arm}, {steps} steps",
                rates,
                partial(train, run, f"{arm}, {steps} steps", schedule, steps),
                score="validation loss",
            )
            found = best[arm, steps].result
            run.metric("loss over steps of the training", found.loss, step=steps, arm=arm)
            run.metric("error over steps of the training", found.error, step=steps, arm=arm)
    run.headline("loss over steps of the training")
    at_middle = {arm: best[arm, middle].result.loss for arm in arms}
    if run.wants(FASTER):
        losses = {steps: found.result.loss for (arm, steps), found in best.items() if arm == "usual"}
        values: dict[str, float | AtLeast] = {
            f"steps for the same loss, usual / {arm}": slower(losses, at_middle[arm], middle)
            for arm in ("one cycle", "cosine")
        }
        values["error, usual, longest"] = best["usual", max(losses)].result.error
        run.claim(FASTER, values, tuned=list(best.values()))
    if run.wants(CYCLE):
        values = {
            "loss, one cycle / cosine": at_middle["one cycle"] / at_middle["cosine"],
            "error, cosine": best["cosine", middle].result.error,
        }
        run.claim(CYCLE, values, tuned=[best["one cycle", middle], best["cosine", middle]])


def slower(losses: dict[int, float], reached: float, steps: int) -> float | AtLeast:
    """The steps after which `losses` come down to `reached`, over `steps`; between two budgets by logarithms.

    At least the longest budget's where none comes down so far; where the shortest one is below already, its.
    """
    budgets = sorted(losses)
    if losses[budgets[0]] <= reached:
        return budgets[0] / steps
    for shorter, longer in itertools.pairwise(budgets):
        if losses[longer] <= reached:
            part = math.log(losses[shorter] / reached) / math.log(losses[shorter] / losses[longer])
            return shorter * (longer / shorter) ** part / steps
    return AtLeast(budgets[-1] / steps)


def train(run: Run, arm: str, schedule: Schedule, steps: int, rate: float) -> tuple[float, Scores]:
    """The loss on digits to choose by, and the scores on the others."""
    images, labels = data.digits()
    (x, y), choose, judge = data.parts(
        images[:, None].to(run.device, run.dtype), labels.to(run.device), seed=run.seed
    )
    torch.manual_seed(run.seed)
    model = network(BatchNorm, widths=(8, 16, 16, 32, 32)).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    batches, noise = run.generator("batches"), run.generator("noise")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        for group in optimizer.param_groups:
            group["lr"], group["momentum"] = schedule(step, steps, rate)
        rows = torch.randint(len(x), (32,), generator=batches)
        loss = F.cross_entropy(model(noisy(x[rows], noise)), y[rows])
        run.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm)
    run.phase("evaluate")
    model.eval()
    with torch.no_grad():
        (chosen_by, _), found = (
            score(model(noisy(images, run.generator(name))), labels)
            for name, (images, labels) in (("noise to choose", choose), ("noise to judge", judge))
        )
    return chosen_by, found


# Benchmark: all rates and momenta of a training

Trace = Float[Tensor, "steps 2"]


def step_by_step(peak: Float[Tensor, " 1"], steps: int) -> Trace:
    found = [one_cycle(step, steps, peak=peak.item()) for step in range(steps)]
    return torch.tensor(found, dtype=peak.dtype, device=peak.device)


def closed_form(peak: Float[Tensor, " 1"], steps: int, *, start: float = 0.1, tail: float = 0.1) -> Trace:
    """All steps at once."""
    step = torch.arange(steps, dtype=torch.promote_types(peak.dtype, torch.float32), device=peak.device)
    turn = (1 - tail) * (steps - 1)
    height = (1 - (step - turn / 2).abs() / (turn / 2)).clamp_min(0)
    down = ((step - turn) / (steps - 1 - turn)).clamp_min(0)
    rate = peak.to(step.dtype) * (start + (1 - start) * height) * (1 - 0.99 * down)
    return torch.stack((rate, 0.95 - 0.1 * height), 1).to(peak.dtype)


def torchs(peak: Float[Tensor, " 1"], steps: int) -> Trace:
    """`OneCycleLR` with three linear phases."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    schedule = OneCycleLR(
        optimizer,
        peak.item(),
        total_steps=steps,
        pct_start=(0.45 * (steps - 1) + 1) / steps,
        anneal_strategy="linear",
        three_phase=True,
        div_factor=10,
        final_div_factor=100,
    )
    found = []
    for _ in range(steps):
        group = optimizer.param_groups[0]
        found.append((group["lr"], group["momentum"]))
        optimizer.step()
        schedule.step() if len(found) < steps else None
    return torch.tensor(found, dtype=peak.dtype, device=peak.device)


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for steps in bench.pick(smoke=(21,), quick=(201, 2001), full=(201, 2001, 20_001)):
        yield Case(
            name="one cycle",
            axes={"steps": steps},
            inputs=lambda generator: (torch.rand(1, generator=generator) + 0.5,),
            variants=(
                Variant(name="step by step", role="naive", call=partial(step_by_step, steps=steps)),
                Variant(name="torch OneCycleLR", role="strong", call=partial(torchs, steps=steps)),
                Variant(name="all at once", role="paper", call=partial(closed_form, steps=steps)),
            ),
            cost={"forward": Cost(flops=10 * steps, bytes=2 * steps * bench.dtype.itemsize)},
        )


# What to write oneself.
def of_steps(_: Draw) -> Iterator[Try]:
    for label, step in (
        ("the first step", 0),
        ("rising", 3),
        ("falling", 6),
        ("in the tail", 9),
        ("the last", 10),
    ):
        yield Try(label, step, 11, peak=2.0)
    yield Try("other settings", 2.5, 21, peak=1.0, start=0.2, tail=0.3, end=0.1)
    yield Try("their tail", 18, 21, peak=1.0, start=0.2, tail=0.3, end=0.1)


EXERCISES = (
    Exercise(
        name="one cycle",
        of="one_cycle",
        task="The learning rate and the momentum at a step.",
        hints=(
            "The cycle takes (1 - tail) (steps - 1) steps; its peak is half-way.",
            "The rate is a line from start · peak up to peak and down; the momentum one from 0.95 to 0.85.",
            "In the tail the rate falls on to end times its first value, and the momentum stays at 0.95.",
        ),
        tries=of_steps,
    ),
)
