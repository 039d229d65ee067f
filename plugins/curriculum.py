"""Curriculum learning for language models: training from easy to hard text shows no benefit.

Campos 2021, "Curriculum learning for language modeling", arXiv 2108.02170. The pacing function is from
Platanios et al. 2019, arXiv 1903.09848.

The problem. Children learn from easy to hard, but a language model reads its training texts in random order.
If a better order saved training steps, it would do so at no cost.

The idea. Measure the difficulty of each piece of text, for example by how frequent its letters or letter
pairs are. Sample from the easiest part first, and let that part grow with the square root of the steps until
it is the whole text. Compare with uniform sampling, and with a curriculum in random order. The paper finds no
compelling evidence for any of its measures of difficulty.

This file implements the pacing function and two measures of difficulty, and trains a small GPT-2. A null
result is informative only if a benefit would have been detected, so the same comparison must detect the
benefit of 25 % more steps.

Dimensions: windows (pieces of text), time, drawn.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack import data
from readtrack.plugin import (
    UNTRAINED,
    Arm,
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
    Trial,
    Try,
    Variant,
    at_least,
    at_most,
    hookimpl,
)

from .gpt2 import GPT2

PLANTED = Break(
    "curricula with a quarter more steps",
    "The curricula train for 25 % more steps than the control.",
    "near miss",
)
TWICE = Break("curricula with twice the steps", "The curricula train for twice as many steps as the control.")

STEPS = 200
IN_ORDER, LONGER, LETTERS = "text in any order", "a quarter more steps", "unigram frequencies"

NO_HELP = Claim(
    name="held-out loss with and without a curriculum",
    sentence="After 200 steps, neither a curriculum by letter rarity nor a curriculum by letter-pair rarity "
    "lowers the held-out loss by more than 0.03 nats per character, compared with the same model trained "
    "with uniform sampling. Training for 25 % more steps does lower it by at least 0.03 nats.",
    paper=Figure("There is no compelling evidence that curricula help", where="abstract", read="abstract"),
    rule=(
        at_least("nats per character", "rare letters last", -0.03, minus=IN_ORDER),
        at_least("nats per character", "rare pairs last", -0.03, minus=IN_ORDER),
        at_most("nats per character", "rare letters last", -0.5, minus=LETTERS, toward=-0.2),
        at_most("nats per character", "rare pairs last", -0.5, minus=LETTERS, toward=-0.2),
    ),
    control="the same model, trained on samples from the whole text at every step. Each model uses the best "
    "of three learning rates",
    control_arm=IN_ORDER,
    control_reaches=(at_least("nats per character", IN_ORDER, 0.03, minus=LONGER),),
    breaks=(PLANTED, TWICE, UNTRAINED),
    no_rival="The claim is a null result. Any other order without a benefit also passes.",
    after_steps=STEPS,
    chosen_on=(0, 1),
    headline=True,
    deviations="The model is a two-layer character model on windows of 48 characters. The paper trains ELMo "
    "on Wikipedia, tries six measures of difficulty and also evaluates on GLUE. Only a benefit counts "
    "against the claim. A curriculum may increase the loss. Our curricula start with 1 % of the text. With a "
    "finer grid of learning rates, a curriculum by letter pairs that starts with 30 % lowers the loss by "
    "0.036 nats on average on seeds 7101 to 7105 (0.016 to 0.051). If both models warm up the learning rate, "
    "it lowers the loss by 0.014 and 0.031 on seeds 7101 and 7103.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced". The rule allowed the curricula to lower the '
            "loss by at most 0.03 nats, and required twice as many steps to lower it by at least 0.05. An "
            "untrained model passed that rule. Now the loss with each curriculum must also be at least 0.5 "
            "nats below the unigram loss, and 25 % more steps must lower the loss by at least 0.03 nats."
        ),
    ),
)

Windows = Int[Tensor, "windows time"]
Difficulty = Float[Tensor, " windows"]
Measure = Callable[[Windows, torch.Generator], Difficulty]


def competence(step: int, total: int, *, first: float = 0.01) -> float:
    """Fraction of the text to sample from at `step` (Platanios et al., equation 8).

    first  fraction at step 0
    """
    return min(1.0, math.sqrt(step / total * (1 - first**2) + first**2))


def draw(
    order: Int[Tensor, " windows"], share: float, uniform: Float[Tensor, " drawn"]
) -> Int[Tensor, " drawn"]:
    """Samples windows from the easiest `share`. `order` goes from easy to hard, `uniform` is in [0, 1)."""
    count = max(math.ceil(share * len(order)), 1)
    return order[(uniform * count).long().clamp_max(count - 1)]


def by_letters(windows: Windows, generator: torch.Generator) -> Difficulty:
    """Mean surprisal of a window's letters in nats, from their unigram frequencies."""
    counts = torch.bincount(windows.flatten()).float()
    return -(counts / counts.sum()).log()[windows].mean(1)


def by_pairs(windows: Windows, generator: torch.Generator) -> Difficulty:
    """Mean surprisal of each letter given the previous one, in nats."""
    size = int(windows.max()) + 1
    pairs = windows[:, :-1] * size + windows[:, 1:]
    counts = torch.bincount(pairs.flatten(), minlength=size**2).float().view(size, size)
    surprise = -(counts / counts.sum(1, keepdim=True).clamp_min(1)).log()
    return surprise.flatten()[pairs].mean(1)


def at_random(windows: Windows, generator: torch.Generator) -> Difficulty:
    return torch.rand(len(windows), generator=generator)


@hookimpl
def implementation() -> Callable[..., Tensor]:
    return draw


class Plan(NamedTuple):
    """How an arm samples its text.

    measure  measure of difficulty, or None for uniform sampling
    longer   factor on the number of steps
    """

    measure: Measure | None
    longer: float = 1.0


class Trained(NamedTuple):
    """early  validation loss after a third of the steps"""

    model: GPT2
    early: float


class World(NamedTuple):
    """Windows of the text.

    pool            training windows
    chosen, judged  validation and test windows
    """

    vocab: int
    pool: Windows
    chosen: Windows
    judged: Windows

    @classmethod
    def of(cls, run: Run) -> "World":
        ids, alphabet = data.characters(data.text())
        text = data.stretches(ids, run.data_seed("world"))
        chosen, judged = run.pick(smoke=(8, 8), quick=(256, 1000), full=(1000, 4000))
        return cls(
            len(alphabet),
            data.windows(text.train, TIME + 1, POOL, run.data("windows to train on", "train")),
            data.windows(text.choose, TIME + 1, chosen, run.data("windows to choose by", "choose")),
            data.windows(text.judge, TIME + 1, judged, run.data("windows to judge by", "judge")),
        )

    def letters(self) -> Float[Tensor, " windows"]:
        """Unigram loss on the test windows in nats per character, with counts from the pool."""
        counts = torch.bincount(self.pool.flatten(), minlength=self.vocab) + 1.0
        return -(counts / counts.sum()).log()[self.judged[:, 1:]].mean(1)


TIME, POOL = 48, 4000


@hookimpl
def experiment(run: Run) -> None:
    run.phase("setup")
    world = World.of(run)
    rates = (0.0007, 0.002, 0.006)
    run.compare(
        NO_HELP,
        arms={
            "rare letters last": Arm(Plan(by_letters)),
            "rare pairs last": Arm(Plan(by_pairs)),
            IN_ORDER: Arm(Plan(None)),
        },
        yardsticks={"random order": Arm(Plan(at_random)), LONGER: Arm(Plan(None, 1.25))},
        attempt=train,
        read=judge,
        grid=run.pick(smoke=rates[1:2], quick=rates, full=rates),
        score="validation loss",
        references={LETTERS: {"nats per character": world.letters()}},
        breaks={
            one.name: {
                "rare letters last": Arm(Plan(by_letters, longer)),
                "rare pairs last": Arm(Plan(by_pairs, longer)),
            }
            for one, longer in ((PLANTED, 1.25), (TWICE, 2.0))
        },
        world=world,
    )
    run.headline("validation loss over fraction of training")


def train(at: Trial, plan: Plan, rate: float) -> tuple[float, Trained]:
    run, world = at.run, at.world
    steps = round(at.length(run.pick(smoke=5, quick=STEPS, full=2000)) * plan.longer)
    model = GPT2(world.vocab, context=TIME, model=48, heads=2, layers=2).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order, batches = torch.arange(POOL), at.generator("batches")
    if plan.measure is not None:
        order = plan.measure(world.pool, at.generator("difficulty")).argsort()
    early = math.nan
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(model, optimizer, schedule)):
        share = 1.0 if plan.measure is None else competence(step, max(round(0.7 * steps), 1))
        rows = draw(order, share, torch.rand(8, generator=batches))
        loss = model.loss(world.pool[rows].to(run.device))
        at.descend(loss, optimizer, step=step, metric=f"training loss, rate {rate:g}", clip=1.0)
        schedule.step()
        if step + 1 == math.ceil(steps / 3):
            early = nats(model, world.chosen).mean().item()
    run.phase("evaluate")
    return nats(model, world.chosen).mean().item(), Trained(model, early)


@torch.no_grad()
def nats(model: GPT2, windows: Windows) -> Float[Tensor, " windows"]:
    """Mean loss of each window's characters after the first, in nats."""
    windows = windows.to(model.tokens.weight.device)
    logits = model(windows[:, :-1]).transpose(1, 2)
    return F.cross_entropy(logits, windows[:, 1:], reduction="none").mean(1).cpu()


def judge(at: Trial, found: Sweep[Trained]) -> dict[str, Float[Tensor, " windows"]]:
    model, early = found.chosen
    loss, curve = nats(model, at.world.judged), "validation loss over fraction of training"
    at.metric("held-out loss", loss.mean().item())
    if not math.isnan(early):
        at.metric(curve, early, step=1 / 3)
    at.metric(curve, nats(model, at.world.chosen).mean().item(), step=1)
    return {"nats per character": loss}


# Benchmark: sampling a batch from the easiest third


def sorted_anew(difficulty: Tensor, uniform: Tensor, *, share: float) -> Tensor:
    """Sorts a Python list for every batch."""
    values = difficulty.tolist()
    order = sorted(range(len(values)), key=values.__getitem__)
    count = max(math.ceil(share * len(order)), 1)
    rows = [order[min(int(u * count), count - 1)] for u in uniform.tolist()]
    return difficulty[rows]


def windows_in_order(by_difficulty: Tensor, uniform: Tensor, *, share: float) -> Tensor:
    count = max(math.ceil(share * len(by_difficulty)), 1)
    return by_difficulty[:count].index_select(0, (uniform * count).long().clamp_max(count - 1))


def kept_in_order(difficulty: Tensor, order: Tensor, uniform: Tensor, *, share: float) -> Tensor:
    return difficulty[draw(order, share, uniform)]


@hookimpl
def benchmark(bench: Bench) -> Iterator[Case]:
    for windows in bench.pick(smoke=(20,), quick=(1000, 20_000), full=(20_000, 1_000_000)):
        yield Case(
            name="batch from the easiest third",
            axes={"windows": windows},
            inputs=lambda generator, windows=windows: (
                torch.randn(windows, generator=generator),
                torch.rand(32, generator=generator),
            ),
            variants=(
                Variant(name="sorting for each batch", role="naive", call=partial(sorted_anew, share=1 / 3)),
                Variant(
                    name="sorted windows",
                    role="strong",
                    call=partial(windows_in_order, share=1 / 3),
                    prepare=lambda difficulty, uniform: (difficulty.sort(stable=True).values, uniform),
                ),
                Variant(
                    name="stored order",
                    role="paper",
                    call=partial(kept_in_order, share=1 / 3),
                    prepare=lambda difficulty, uniform: (
                        difficulty,
                        difficulty.argsort(stable=True),
                        uniform,
                    ),
                ),
            ),
            cost={"forward": Cost(flops=64, bytes=32 * (8 + 2 * bench.dtype.itemsize))},
        )


# Exercises
def of_steps(_: Draw) -> Iterator[Try]:
    for step in (0, 1, 5, 10, 12):
        yield Try(f"step {step} of 10", step, 10)
    yield Try("starting from a tenth", 2, 8, first=0.1)


def of_orders(given: Draw) -> Iterator[Try]:
    order = torch.randperm(6, generator=given.generator)
    for share in (0.5, 0.4, 1.0, 0.01):
        yield Try(f"a share of {share}", order, share, given.between(0, 0.99, 4))


def of_windows(given: Draw) -> Iterator[Try]:
    for label, shape in (("one window", (1, 4)), ("3 windows", (3, 5))):
        yield Try(label, given.below(3, *shape), given.generator)


EXERCISES = (
    Exercise(
        name="competence",
        of="competence",
        task="Return the fraction of the text to sample from, which grows with the square root of the steps.",
        hints=(
            "The square of the fraction grows linearly, from first² at step 0 to 1 at `total`.",
            "It never exceeds 1.",
        ),
        tries=of_steps,
    ),
    Exercise(
        name="draw",
        of="draw",
        task="Sample windows from the easiest share.",
        hints=(
            "The number of windows in the share is rounded up, and is at least 1.",
            "uniform times that number, rounded down, is an index into the order.",
        ),
        tries=of_orders,
    ),
    Exercise(
        name="rare letters",
        of="by_letters",
        task="Return the difficulty of each window: the mean surprisal of its letters, in nats.",
        hints=("Count the letters of all windows. A letter's surprisal is minus the log of its frequency.",),
        tries=of_windows,
        tolerance=1e-5,
    ),
    Exercise(
        name="rare pairs",
        of="by_pairs",
        task="Return the mean surprisal of each letter given the letter before it, in nats.",
        hints=(
            "Number the pairs: the first letter times the size of the alphabet, plus the second letter.",
            "Normalise the counts over the pairs that begin with the same letter.",
        ),
        tries=of_windows,
        tolerance=1e-5,
    ),
)
