"""Super-convergence: one cycle of the learning rate, with an unusually high peak.

Smith and Topin 2017, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
arXiv 1708.07120.

The problem. The usual schedule keeps the learning rate constant for a long time, and divides it by ten when
the loss stagnates. Training takes tens of thousands of steps, most of them on plateaus.

The idea. Train with one cycle of the learning rate. The learning rate rises linearly to a peak found with a
range test, ten times the usual value or more. It then falls back symmetrically, and ends in a short tail at
far lower values. The momentum moves in the opposite direction. The authors argue that high learning rates
regularise, so other regularisation should be reduced, and that the same accuracy takes a tenth of the steps.

This file. The schedule is written as a function of the step and as a torch scheduler. The experiment compares
one cycle with the usual step schedule and with a cosine schedule, which also decays to zero. The gain over
the cosine is the benefit of the cycle itself. Training is much shorter than in the paper, so the usual
schedule spends little time on plateaus, and the digits need little regularisation. The benchmark times the
schedule.

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

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    AtLeast,
    Bench,
    Break,
    Case,
    Claim,
    Cost,
    Draw,
    Exercise,
    Figure,
    Run,
    Sweep,
    Table,
    Trial,
    Try,
    Variant,
    at_least,
    at_most,
    hookimpl,
)

from .batchnorm import BatchNorm
from .batchnorm.convolutions import Measures, digits, measures, network, noisy

NO_FALL = Break("no decay", "The learning rate rises to its peak and stays there.", "near miss")
COSINE = Break("cosine", "The learning rate falls along a cosine, without a rise.", "rival")
WARMED = Break(
    "warm-up and cosine",
    "The learning rate rises for a tenth of the steps and then falls along a cosine.",
    "rival",
)

STEPS = 60
SAME_LOSS = "steps to the same loss, step schedule / own"
DEVIATIONS = (
    "We train a deep convolutional network with batch normalisation on noisy 8 × 8 digits for 60 steps with "
    "batches of 32. There is no weight decay. Each schedule is run with its best learning rate from a grid "
    "of four. "
)

FASTER = Claim(
    name="steps to the same loss, step schedule against one cycle",
    sentence="The usual step schedule needs at least three times as many steps to reach the held-out loss "
    "that one cycle reaches after 60 steps.",
    paper=Figure(
        "Accuracy on CIFAR-10 reaches 92.4 % in 10,000 steps, and 91.2 % in 80,000 steps with the usual "
        "schedule",
        where="figure 1 a",
        read="text",
    ),
    rule=(at_least(SAME_LOSS, "one cycle@T", 3.0, toward=1.2),),
    control="a learning rate that falls to a tenth after half of the steps, and to a hundredth after three "
    "quarters",
    control_arm="usual",
    control_reaches=(at_most("error", "usual@4T", 0.15),),
    after_steps=STEPS,
    breaks=(NO_FALL, COSINE, UNTRAINED),
    chosen_on=(0,),
    deviations=DEVIATIONS + "The usual schedule takes 30, 60, 120 or 240 steps. The number of steps "
    "that it needs to match the loss of one cycle is interpolated between these lengths on a log scale.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "not reproduced" (0 of 5 seeds, same bound). The cosine was '
            "only shown for comparison. Now it is a rival."
        ),
    ),
)

CYCLE = Claim(
    name="loss with one cycle and with cosine decay",
    sentence="After 60 steps, the held-out loss is lower with one cycle than with a learning rate that falls "
    "along a cosine from the start.",
    paper=Figure("Large learning rates regularise and speed up training", where="abstract", read="abstract"),
    rule=(at_most("loss", "one cycle@T", 0.95, over="cosine@T", toward=1.0),),
    control="a cosine schedule that decays to zero over the same number of steps, with its best learning "
    "rate from the same grid",
    control_arm="cosine",
    control_reaches=(at_most("error", "cosine@T", 0.3),),
    after_steps=STEPS,
    breaks=(NO_FALL, WARMED, UNTRAINED),
    chosen_on=(0,),
    deviations=DEVIATIONS + "The paper does not compare one cycle with a cosine schedule.",
    history=(
        (
            'Until November 2026 the verdict was "not reproduced" (0 of 5 seeds, same bound). There was no '
            "rival."
        ),
    ),
)


def one_cycle(
    step: int | float, steps: int, *, peak: float, start: float = 0.1, tail: float = 0.1, end: float = 0.01
) -> tuple[float, float]:
    """Learning rate and momentum at `step` of `steps` (section 3).

    start  learning rate at the first step and before the tail, as a fraction of the peak
    tail   fraction of the steps that form the tail
    end    last learning rate, as a fraction of the first
    """
    if steps == 1:
        return peak * start, 0.95
    top, turn = (1 - tail) * (steps - 1) / 2, (1 - tail) * (steps - 1)
    if step > turn:
        return peak * start * (1 + (end - 1) * (step - turn) / (steps - 1 - turn)), 0.95
    height = 1 - abs(step - top) / top
    return peak * (start + (1 - start) * height), 0.95 - 0.1 * height


class OneCycle(LRScheduler):
    """Applies `one_cycle` to every parameter group of an optimiser with momentum. Takes the same settings."""

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


# Experiment: a schedule maps a step and the number of steps to a learning rate and momentum

Schedule = Callable[[int | float, int, float], tuple[float, float]]


def cycle(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    return one_cycle(step, steps, peak=rate)


def usual(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    """Section 5: divide the learning rate by ten after half of the steps, and again after three quarters."""
    return rate * 0.1 ** ((step >= steps / 2) + (step >= steps * 3 / 4)), 0.9


def cosine(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    return rate * (1 + math.cos(math.pi * step / steps)) / 2, 0.9


def rise(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    """The first half of a cycle, then a constant learning rate at the peak."""
    return one_cycle(min(step, 0.45 * (steps - 1)), steps, peak=rate)


def warmed(step: int | float, steps: int, rate: float) -> tuple[float, float]:
    return rate * min(1.0, (step + 1) / (0.1 * steps)) * cosine(step, steps, 1.0)[0], 0.9


LENGTHS = {"T/2": 0.5, "T": 1.0, "2T": 2.0, "4T": 4.0}  # length of training, in units of `STEPS`
LEVELS = {"one cycle": ("T",), "usual": tuple(LENGTHS), "cosine": ("T",)}


@hookimpl
def experiment(run: Run) -> None:
    schedules: dict[str, Schedule] = {"one cycle": cycle, "usual": usual, "cosine": cosine}
    rates = (0.03, 0.1, 0.3, 1.0)
    run.compare(
        FASTER,
        CYCLE,
        arms={name: Arm(schedule) for name, schedule in schedules.items()},
        levels=LEVELS,
        attempt=partial(train, middle=run.pick(smoke=4, quick=STEPS, full=400)),
        read=read_off,
        derive=same_loss,
        grid=run.pick(smoke=(0.1,), quick=rates, full=(*rates, 3.0)),
        score="validation loss",
        breaks={
            NO_FALL.name: {"one cycle": Arm(rise)},
            COSINE.name: {"one cycle": Arm(cosine)},
            WARMED.name: {"one cycle": Arm(warmed)},
        },
        world=digits(run),
        unequal=dict.fromkeys(
            schedules, "learning rates: the schedules are what we compare, so the difference favours no arm"
        ),
        judged_on="training",  # training length
    )
    run.headline("loss over the length of the training")


def read_off(at: Trial, found: Sweep[Measures]) -> Measures:
    for name, values in found.chosen.items():
        length, arm = LENGTHS[str(at.level)], at.name.partition("@")[0]
        at.metric(f"{name} over the length of the training", values.mean().item(), step=length, arm=arm)
    return found.chosen


def same_loss(table: Table) -> dict[str, dict[str, float | AtLeast]]:
    """The number of steps after which the usual schedule reaches one cycle's loss."""
    losses = {row: value for row, value in table.of("loss").items() if isinstance(value, float)}
    if "usual@T" not in losses:
        return {}
    usuals = {length: losses[f"usual@{name}"] for name, length in LENGTHS.items()}
    return {"one cycle@T": {SAME_LOSS: slower(usuals, losses["one cycle@T"])}}


def slower(losses: dict[float, float], reached: float) -> float | AtLeast:
    """The length of training at which the loss equals `reached`, interpolated between lengths on a log scale.

    If no loss is that low, the result is "at least the longest length". If all losses are that low, the
    result is the shortest length.
    """
    lengths = sorted(losses)
    if losses[lengths[0]] <= reached:
        return lengths[0]
    for shorter, longer in itertools.pairwise(lengths):
        if losses[longer] <= reached:
            part = math.log(losses[shorter] / reached) / math.log(losses[shorter] / losses[longer])
            return float(shorter * (longer / shorter) ** part)
    return AtLeast(lengths[-1])  # not at smoke: the longest training there reaches the loss


def train(at: Trial, schedule: Schedule, rate: float, *, middle: int) -> tuple[float, Measures]:
    """Train a network, and return the validation loss and the measures on test digits."""
    run, (x, y) = at.run, at.world.train
    steps = at.length(int(middle * LENGTHS[str(at.level)]))
    model = network(BatchNorm, widths=(8, 16, 16, 32, 32)).to(run.device, run.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    batches, noise = at.generator("batches"), at.generator("noise")
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(model, optimizer)):
        for group in optimizer.param_groups:
            group["lr"], group["momentum"] = schedule(step, steps, rate)
        rows = torch.randint(len(x), (32,), generator=batches)
        loss = F.cross_entropy(model(noisy(x[rows], noise)), y[rows])
        at.descend(loss, optimizer, step=step, metric=f"loss at rate {rate:g}")
    run.phase("evaluate")
    with run.evaluating(model):
        chosen_by, judged = (
            measures(model, images, labels, run.data(f"noise to {part}", part))
            for part, (images, labels) in (("choose", at.world.choose), ("judge", at.world.judge))
        )
    return chosen_by["loss"].mean().item(), judged


# Benchmark: all learning rates and momenta of one training run

Trace = Float[Tensor, "steps 2"]


def step_by_step(peak: Float[Tensor, " 1"], steps: int) -> Trace:
    found = [one_cycle(step, steps, peak=peak.item()) for step in range(steps)]
    return torch.tensor(found, dtype=peak.dtype, device=peak.device)


def closed_form(peak: Float[Tensor, " 1"], steps: int, *, start: float = 0.1, tail: float = 0.1) -> Trace:
    """Compute all steps at once."""
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


# Exercises
def of_steps(_: Draw) -> Iterator[Try]:
    for label, step in (
        ("the first step", 0),
        ("rising", 3),
        ("falling", 6),
        ("in the tail", 9),
        ("the last step", 10),
    ):
        yield Try(label, step, 11, peak=2.0)
    yield Try("other settings", 2.5, 21, peak=1.0, start=0.2, tail=0.3, end=0.1)
    yield Try("tail with other settings", 18, 21, peak=1.0, start=0.2, tail=0.3, end=0.1)


EXERCISES = (
    Exercise(
        name="one cycle",
        of="one_cycle",
        task="Return the learning rate and the momentum at a step.",
        hints=(
            "The cycle takes (1 - tail) (steps - 1) steps. The peak is halfway.",
            (
                "The learning rate goes linearly from start · peak to peak and back. The momentum goes "
                "from 0.95 to 0.85 and back."
            ),
            "In the tail, the learning rate falls to end · start · peak, and the momentum is 0.95.",
        ),
        tries=of_steps,
    ),
)
