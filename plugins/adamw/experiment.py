"""Both identities, how unevenly Adam decays, and the grid of learning rates and decays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..adam import Adam
from ..sgd import SGD
from ..sgd.trials import Problem, cosine, digits, evaluate, perceptron, start, train
from .model import SGDW, AdamW

COUPLED = Break("coupled", "The decoupling: AdamW's decay goes through Adam, as a penalty in the loss.")

IDENTITY = Claim(
    name="penalty or decay",
    sentence="For SGD, an L2 penalty and weight decay are the same thing.",
    paper=Figure("Proved.", where="proposition 1", read="text"),
    rule=(Bound("SGD: largest difference of weights", "<=", 1e-12),),
    kind="identity",
    control="the same batches and the same coefficient, as a penalty in the loss",
    deviations="100 steps of a perceptron on digits in float64.",
)

NO_PENALTY = Claim(
    name="no penalty is the decay",
    sentence="For Adam, no L2 penalty is the same thing as weight decay.",
    paper=Figure(
        "Proved, for preconditioners that are not a multiple of the identity.",
        where="proposition 2",
        read="text",
    ),
    rule=(Bound("Adam: largest difference of weights, with the nearest penalty", ">=", 1e-3),),
    kind="theorem",
    control="the same batches with penalties from 1e-4 to 1, four a decade, and none",
    deviations="100 steps of a perceptron on digits in float64, against a decay of 0.1.",
)

EVENLY = Claim(
    name="evenly",
    sentence="A penalty that goes through Adam decays weights with large gradients least; decoupled, all are "
    "decayed at one rate.",
    paper=Figure(
        "An argument, and a proof for a fixed preconditioner; no figure.",
        where="section 2, proposition 3",
        read="text",
    ),
    rule=(
        Bound("Adam with penalty: rank correlation of decay and gradients' size", "<=", -0.8),
        Bound("AdamW: rank correlation of decay and gradients' size", "<=", 0.1),
        Bound("AdamW: rank correlation of decay and gradients' size", ">=", -0.1),
    ),
    kind="theorem",
    guards=(Bound("AdamW: 9th / 1st decile of the decay", "<=", 1.001),),
    control="one step from the same trained state: with decoupled decay, with a penalty, with neither",
    deviations="Measured on the first layer of a trained perceptron; the gradients' size is the root of "
    "Adam's second moment.",
)

SEPARABLE = Claim(
    name="separable",
    sentence="Decoupled, the best decay depends less on the learning rate than the best penalty does.",
    paper=Figure(
        "Heat maps: with a penalty, rate and penalty are coupled; AdamW largely decouples rate and decay.",
        where="section 4.2, figure 2",
        read="text",
    ),
    rule=(Bound("decades that the best decay moves, AdamW − Adam with penalty", "<=", -0.5, direction=0.0),),
    control="the same grid of penalties",
    control_reaches=(Bound("loss with the best penalty / without", "<=", 0.99, ratio=True),),
    breaks=(COUPLED,),
    chosen_on=(0, 1, 2),
    deviations="A perceptron on 200 digits, a fifth of their labels drawn anew; 300 batches, learning rates "
    "of 0.01 to 0.08 under a cosine, which scales the decay too. The decay is the paper's λ, the same at "
    "every learning rate; how far it moves in torch's form, λ / lr, is shown beside.",
)

GENERALISES = Claim(
    name="generalises",
    sentence="Tuned alike, AdamW errs less on new data than Adam with a penalty.",
    paper=Figure("15 % less test error on CIFAR-10, relatively.", where="sections 1 and 4.4", read="text"),
    rule=(Bound("test error, AdamW / Adam with penalty", "<=", 0.95, direction=1.0, ratio=True),),
    control="Adam with a penalty at the best of the same 28 settings",
    control_reaches=SEPARABLE.control_reaches,
    breaks=(COUPLED,),
    chosen_on=(0, 1, 2),
    deviations="As above.",
)

Grid = dict[tuple[str, float, float], tuple[float, float, float]]  # (arm, rate, decay) to two losses, error

RATES = (0.01, 0.02, 0.04, 0.08)
DECAYS = tuple(10 ** (exponent / 2) for exponent in range(-8, -1))  # seven from 1e-4 to 0.1


@hookimpl
def experiment(run: Run) -> None:
    run.headline("validation loss over decay")
    if run.wants(IDENTITY, NO_PENALTY):
        compare_penalty_and_decay(run)
    if run.wants(EVENLY):
        measure_decay(run)
    if run.wants(SEPARABLE, GENERALISES):
        search(run)


def compare_penalty_and_decay(run: Run) -> None:
    problem = in_double(run)

    def end(optimizer_of: Callable[..., torch.optim.Optimizer], penalty: float = 0.0) -> list[Tensor]:
        model = start(run, problem.build).double()
        optimizer, generator = optimizer_of(model.parameters()), run.generator("batches")
        steps = range(run.pick(smoke=3, quick=100, full=100))
        for _ in train(model, optimizer, replace(problem, penalty=penalty), steps=steps, generator=generator):
            run.check_cancelled()
        return [w.detach() for w in model.parameters()]

    def difference(one: list[Tensor], other: list[Tensor]) -> float:
        return max((mine - same).abs().max().item() for mine, same in zip(one, other, strict=True))

    decayed = end(partial(SGDW, lr=0.1, weight_decay=0.1))
    penalised = end(partial(SGD, lr=0.1), 0.1)
    run.claim(IDENTITY, {"SGD: largest difference of weights": difference(decayed, penalised)})
    decayed = end(partial(AdamW, lr=0.01, weight_decay=0.1))
    penalties = (0.0, *(10 ** (exponent / 4) for exponent in range(-16, 1)))
    nearest = min(difference(decayed, end(partial(Adam, lr=0.01), penalty)) for penalty in penalties)
    run.claim(NO_PENALTY, {"Adam: largest difference of weights, with the nearest penalty": nearest})


def in_double(run: Run) -> Problem:
    """The digits in float64; on the CPU, because some devices have none."""
    images, labels = data.digits()
    images, labels = data.parts(images.flatten(1).double(), labels, seed=run.seed).train
    return Problem("digits in float64", perceptron, images, labels)


def measure_decay(run: Run) -> None:
    """By how much of itself each weight shrinks in one step on account of the decay."""
    problem, coefficient, lr = in_double(run), 0.01, 0.01
    inked = problem.inputs.amax(0) > 0  # the weights of other pixels have no gradient at all
    after: dict[str, Tensor] = {}
    for arm, (weight_decay, penalty) in {
        "neither": (0.0, 0.0),
        "AdamW": (coefficient, 0.0),
        "Adam with penalty": (0.0, coefficient),
    }.items():
        model, generator = start(run, problem.build).double(), run.generator("batches")
        optimizer = AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        for _ in train(
            model,
            optimizer,
            problem,
            steps=range(run.pick(smoke=10, quick=200, full=500)),
            generator=generator,
        ):
            run.check_cancelled()
        optimizer.param_groups[0]["weight_decay"] = weight_decay
        before = model[0].weight.detach()[:, inked].clone()
        one = train(model, optimizer, replace(problem, penalty=penalty), steps=range(1), generator=generator)
        next(one)
        after[arm] = model[0].weight.detach()[:, inked]
        if arm == "neither":
            size = optimizer.state[model[0].weight]["v"][:, inked].sqrt()
    values = {}
    for arm in ("AdamW", "Adam with penalty"):
        shrunk = (after["neither"] - after[arm]) / before
        low, high = shrunk.abs().quantile(torch.tensor([0.1, 0.9], dtype=torch.float64)).tolist()
        values[f"{arm}: 9th / 1st decile of the decay"] = high / low
        name = f"{arm}: rank correlation of decay and gradients' size"
        values[name] = rank_correlation(shrunk.flatten(), size.flatten())
    for name, value in values.items():
        run.metric(name, value)
    run.claim(EVENLY, values)


def rank_correlation(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> float:
    """Spearman's; equal values are ranked by their places."""
    ranks = torch.stack([x.argsort().argsort(), y.argsort().argsort()]).double()
    return torch.corrcoef(ranks)[0, 1].item()


def search(run: Run) -> None:
    """Figure 2: held-out loss over learning rate and decay, where regularisation is needed."""
    problem, choose, judge = few_and_noisy(run)
    steps, rates, decays = run.pick(
        smoke=(4, RATES[:2], DECAYS[2:4]), quick=(300, RATES, DECAYS), full=(1000, RATES, DECAYS)
    )
    grid: Grid = {}

    def attempt(arm: str, coupled: bool, rate: float, amount: float) -> tuple[float, tuple[float, float]]:
        """Loss to choose by; loss and error to judge by."""
        model = start(run, problem.build)
        optimizer = AdamW(model.parameters(), lr=rate, weight_decay=0.0 if coupled else amount / rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(cosine, total=steps))
        for _ in train(
            model,
            optimizer,
            replace(problem, penalty=amount if coupled else 0.0),
            steps=run.steps(steps, f"{arm}, rate {rate:g}, decay {amount:.2g}"),
            generator=run.generator("batches"),
        ):
            scheduler.step()
        loss, accuracy = evaluate(model, *judge)
        grid[arm, rate, amount] = evaluate(model, *choose)[0], loss, 1 - accuracy
        return grid[arm, rate, amount][0], (loss, 1 - accuracy)

    run.phase("train")
    arms = run.arms({"AdamW": run.without("coupled"), "Adam with penalty": True}, control="Adam with penalty")
    sweeps: dict[str, list[Best[tuple[float, float]]]] = {}
    moves, loss, error = (dict[str, float]() for _ in range(3))
    for arm, coupled in arms.items():
        sweeps[arm] = [
            run.sweep(
                f"{arm}, rate {rate:g}",
                decays,
                partial(attempt, arm, coupled, rate),
                what="decay",
                score="validation loss",
            )
            for rate in rates
        ]
        best = [one.value for one in sweeps[arm]]
        moves[arm] = decades(best)
        loss[arm], error[arm] = min(sweeps[arm], key=lambda one: one.score).result
        run.metric("decades that the best decay moves", moves[arm], arm=arm)
        of_rates = [one / rate for one, rate in zip(best, rates, strict=True)]
        run.metric("decades that the best decay / rate moves", decades(of_rates), arm=arm)
        run.metric("held-out loss", loss[arm], arm=arm)
        run.metric("test error", error[arm], arm=arm)
        run.metric("held-out loss lost by tuning one at a time", lost(grid, arm, best), arm=arm)
        show(run, arm, grid)
    without = min(attempt("no decay", True, rate, 0.0) for rate in rates)[1][0]
    needed = {"loss with the best penalty / without": loss["Adam with penalty"] / without}
    tuned = [one for of_arm in sweeps.values() for one in of_arm]
    values = {
        "decades that the best decay moves, AdamW − Adam with penalty": moves["AdamW"]
        - moves["Adam with penalty"]
    }
    run.claim(SEPARABLE, values | needed, tuned=tuned)
    values = {"test error, AdamW / Adam with penalty": error["AdamW"] / error["Adam with penalty"]}
    run.claim(GENERALISES, values | needed, tuned=tuned)


def decades(values: list[float]) -> float:
    return math.log10(max(values) / min(values))


def lost(grid: Grid, arm: str, best: list[float]) -> float:
    """The held-out loss above that of the best setting, where the decay is tuned at one rate, the rate then
    with that decay: the mean over the rates to begin with."""
    of_arm = {(rate, amount): losses for (name, rate, amount), losses in grid.items() if name == arm}
    lowest = min(of_arm.values())[1]
    ends = [min(losses for (_, amount), losses in of_arm.items() if amount == decay)[1] for decay in best]
    return sum(ends) / len(ends) - lowest


def few_and_noisy(run: Run) -> tuple[Problem, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """200 digits, a fifth of their labels drawn anew, to train on; those to choose by and to judge by."""
    (images, labels), choose, judge = digits(run)
    generator = run.generator("noise")
    noisy = (torch.rand(200, generator=generator) < 0.2).to(run.device)
    wrong = torch.randint(10, (200,), generator=generator).to(run.device)
    labels = torch.where(noisy, wrong, labels[:200])
    return Problem("few digits, noisy labels", perceptron, images[:200], labels), choose, judge


def show(run: Run, arm: str, grid: Grid) -> None:
    """The losses to choose by as a table and as a picture."""
    rates, decays = (sorted({key[i] for key in grid if key[0] == arm}) for i in (1, 2))
    rows = [[grid[arm, rate, decay][0] for decay in decays] for rate in rates]
    run.table(
        f"{arm} grid",
        ("rate", *(f"decay {decay:.2g}" for decay in decays)),
        [(rate, *(round(loss, 3) for loss in row)) for rate, row in zip(rates, rows, strict=True)],
        caption="Held-out loss over learning rate and decay.",
    )
    run.image(
        f"{arm} map",
        (1.5 - torch.tensor(rows)).repeat_interleave(24, 0).repeat_interleave(24, 1),
        caption="The same as a picture: rates downwards, decays to the right, white 0.5, black 1.5.",
    )
