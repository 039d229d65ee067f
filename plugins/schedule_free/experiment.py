"""One run without a schedule, stopped three times, against cosine schedules that were made for each time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..adamw import AdamW
from ..momentum import Momentum
from ..sgd import SGD
from ..sgd.trials import Make, Problem, cosine, digits, evaluate, perceptron, start, train
from .model import ScheduleFreeAdamW, ScheduleFreeSGD

STOPS = {"a ninth": 1, "a third": 3, "all": 9}  # ninths of the steps
WARMUP = 20
NOISE = 0.2  # std, of pixels between 0 and 1

AT_Z = Break("gradients at z", "The interpolation: β is 0.01, so that gradients are measured almost at z.")
NO_MEAN = Break("no mean", "The averaging: what is evaluated is z, where the gradients are measured too.")

RULE = tuple(
    Bound(f"loss / best cosine's, after {share} of the steps", "<", 1.0, direction=1.05, ratio=True)
    for share in STOPS
)
# Where a constant rate does as well, nothing is shown by having no schedule.
CONTROL_REACHES = (
    Bound("constant rate: largest loss / best cosine's", ">=", 1.1),
    Bound("training loss of the best cosine, after all of the steps", "<=", 0.2),
)
FRONTIER = Figure(
    "One run closely tracks the frontier of loss and time; it matches or exceeds cosines of various lengths.",
    where="figure 1",
    read="text",
)

WITH_SGD = Claim(
    name="one run of SGD",
    sentence="One run of Schedule-Free SGD reaches, at every stopping time, a lower training loss than SGD "
    "with momentum under a cosine schedule that was made and tuned for that time.",
    paper=FRONTIER,
    rule=RULE,
    control="heavy ball under a cosine after the same warm-up, at the best of seven rates for each time; "
    "a constant rate, which has to do worse somewhere",
    control_reaches=CONTROL_REACHES,
    breaks=(AT_Z, NO_MEAN),
    chosen_on=(0, 1, 2),
    deviations="A perceptron on the 8 x 8 digits under pixel noise that is new in every step, for 60, 180 "
    "and 540 batches; the loss is that of all training rows in four fixed draws of the noise. Schedule-Free "
    "has one rate for all three times, from the same grid. Test accuracies are shown beside.",
)

WITH_ADAMW = Claim(
    name="one run of AdamW",
    sentence="One run of Schedule-Free AdamW reaches, at every stopping time, a lower training loss than "
    "AdamW under a cosine schedule that was made and tuned for that time.",
    paper=FRONTIER,
    rule=RULE,
    control="AdamW under a cosine after the same warm-up, at the best of five rates for each time; a "
    "constant rate, which has to do worse somewhere",
    control_reaches=CONTROL_REACHES,
    breaks=(AT_Z, NO_MEAN),
    chosen_on=(0, 1, 2),
    deviations="As above, without weight decay.",
)

# From weights, a rate and the number of steps to an optimiser and its schedule.
Build = Callable[[Iterable[Any], float, int], tuple[torch.optim.Optimizer, LambdaLR | None]]


def free(make: Make) -> Build:
    return lambda weights, lr, total: (make(weights, lr=lr, warmup=WARMUP), None)


def scheduled(make: Make) -> Build:
    def build(weights: Iterable[Any], lr: float, total: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        optimizer = make(weights, lr=lr)
        return optimizer, LambdaLR(optimizer, partial(cosine, total=total, warmup=WARMUP))

    return build


def constant(make: Make) -> Build:
    def build(weights: Iterable[Any], lr: float, total: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        optimizer = make(weights, lr=lr)
        return optimizer, LambdaLR(optimizer, lambda t: min((t + 1) / WARMUP, 1))

    return build


@hookimpl
def experiment(run: Run) -> None:
    run.headline("training loss, SGD")
    run.phase("train")
    adamw = partial(AdamW, weight_decay=0.0)
    if run.without("gradients at z"):
        ours = (
            free(partial(ScheduleFreeSGD, beta=0.01)),
            free(partial(ScheduleFreeAdamW, betas=(0.01, 0.999))),
        )
    elif run.without("no mean"):
        ours = constant(SGD), constant(partial(adamw, betas=(0.0, 0.999)))
    else:
        ours = free(ScheduleFreeSGD), free(ScheduleFreeAdamW)
    if run.wants(WITH_SGD):
        compare(run, "SGD", ours[0], Momentum, tuple(0.1 * 2**i for i in range(7)), WITH_SGD)
    if run.wants(WITH_ADAMW):
        compare(run, "AdamW", ours[1], adamw, tuple(0.0125 * 2**i for i in range(5)), WITH_ADAMW)


def compare(run: Run, name: str, ours: Build, theirs: Make, rates: tuple[float, ...], claim: Claim) -> None:
    """One run of each arm without a schedule, and one of the cosine for each stopping time."""
    training, _, test = digits(run)
    problem = Problem(name, perceptron, *training, noise=NOISE)
    training, test = noisy(training, run.generator("noise")), noisy(test, run.generator("test noise"))
    ninth, rates = run.pick(smoke=(2, rates[1:2]), quick=(60, rates), full=(1000, rates))
    stops = {share: stop * ninth for share, stop in STOPS.items()}
    arms = run.arms({"schedule-free": ours, "cosine": scheduled(theirs)}, control="cosine")
    sweeps: list[Best[None]] = []

    def tuned(arm: str, build: Build, looks: list[int]) -> dict[int, float]:
        """Training loss after each of `looks` steps, the last of which are all. The rate is the one with the
        lowest product of them in two other draws of weights and batches: a single one may take a rate that
        was stable by luck."""

        def score(rate: float) -> tuple[float, None]:
            logs = [
                math.log(evaluate(model, *training)[0])
                for draw in ("choose", "choose again")
                for model in train_and_look(run, problem, build, rate, looks, label=arm, draw=draw).values()
            ]
            return sum(logs) / len(logs), None

        best = run.sweep(f"{name}, {arm}", rates, score, score="log validation loss")
        sweeps.append(best)
        if math.isnan(best.value):
            return dict.fromkeys(looks, math.nan)
        every = max(ninth // 5, 1)
        steps = sorted({*range(every, looks[-1], every), *looks})
        found = train_and_look(run, problem, build, best.value, steps, label=arm, draw="judge")
        losses = {step: evaluate(model, *training)[0] for step, model in found.items()}
        for step, loss in losses.items():
            run.metric(f"training loss, {name}", loss, step=step, arm=arm)
        for step in looks:
            run.metric(f"test accuracy, {name}", evaluate(found[step], *test)[1], arm=f"{arm}, {step} steps")
        return losses

    best = {stop: tuned(f"cosine for {stop} steps", arms["cosine"], [stop])[stop] for stop in stops.values()}
    one_run = tuned("schedule-free", arms["schedule-free"], list(best))
    plain = tuned("constant rate", constant(theirs), list(best))
    values = {
        f"loss / best cosine's, after {share} of the steps": one_run[stop] / best[stop]
        for share, stop in stops.items()
    }
    values["constant rate: largest loss / best cosine's"] = max(plain[stop] / best[stop] for stop in best)
    values["training loss of the best cosine, after all of the steps"] = best[stops["all"]]
    run.claim(claim, values, tuned=sweeps)


def noisy(rows: tuple[Tensor, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four copies of the rows, each with noise of its own, and their labels."""
    images, labels = (part.repeat(4, *[1] * (part.dim() - 1)) for part in rows)
    return images + NOISE * torch.randn(images.shape, generator=generator).to(images), labels


def train_and_look(
    run: Run,
    problem: Problem,
    build: Build,
    rate: float,
    looks: list[int],
    *,
    label: str,
    draw: str,
) -> Mapping[int, nn.Module]:
    """Copies of the network after each of `looks` steps, the last of which is the end; Schedule-Free's hold
    the mean."""
    model = start(run, problem.build, f"weights to {draw}")
    optimizer, schedule = build(model.parameters(), rate, looks[-1])
    found: dict[int, nn.Module] = {}
    steps = run.steps(looks[-1], f"{problem.name}: {label}, rate {rate:g}")
    walk = train(model, optimizer, problem, steps=steps, generator=run.generator(f"batches to {draw}"))
    for step, _ in enumerate(walk, 1):
        if schedule is not None:
            schedule.step()
        if step in looks:
            averages = isinstance(optimizer, ScheduleFreeSGD)
            if averages:
                optimizer.eval()
            found[step] = deepcopy(model)
            if averages:
                optimizer.train()
    return found
