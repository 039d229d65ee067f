"""Curriculum learning for language models: easy text first, and no evidence that it helps.

Campos 2021, "Curriculum learning for language modeling", arXiv 2108.02170. The pace is from Platanios et al.
2019, arXiv 1903.09848.

The problem. Children learn from easy to hard, and a language model reads its texts in any order. If an order
that costs nothing saved training, every model should have it.

The idea. Say how hard each piece of text is: how rare its letters or pairs of letters are. Let the model draw
from the easiest part first, and let that part grow with the square root of the steps until it is all of the
text. Compare with no order, and with an order by numbers drawn at random. The paper finds no compelling
evidence for any of its measures.

This file. The pace and the measures, and a GPT-2 in miniature. A null result is worth something only if a
benefit would have been seen: the same comparison must find one that is put there, a training of more steps.

Dimensions: windows (pieces of text), time, drawn.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from readtrack import data
from readtrack.plugin import (
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

from .gpt2 import GPT2

PLANTED = Break("planted benefit", "The curricula train for twice the steps.")

NO_HELP = Claim(
    name="no evidence",
    sentence="No curriculum, by rarity of letters or of pairs of letters, trains a better model than text "
    "in any order, while a benefit that is put there is seen.",
    paper=Figure("No compelling evidence that curricula help", where="abstract", read="abstract"),
    rule=(Bound("loss saved by the better curriculum", "<=", 0.03),),
    control="twice the steps, without a curriculum: a benefit that must be seen",
    control_reaches=(Bound("loss saved by more steps", ">=", 0.05),),
    breaks=(PLANTED,),
    shortcuts=("loss saved by an order at random", "loss saved after a third of the steps"),
    chosen_on=(0,),
    deviations="A character model of two layers on windows of 48 characters, each arm at the best of "
    "the same rates. The paper trains ELMo on Wikipedia and judges it by GLUE. That nothing is saved is what "
    "the rule asks for; a null run, in which every arm has twice the steps, fails it.",
)

Windows = Int[Tensor, "windows time"]
Difficulty = Float[Tensor, " windows"]
Measure = Callable[[Windows, torch.Generator], Difficulty]


def competence(step: int, total: int, *, first: float = 0.01) -> float:
    """The part of the text that is drawn from at `step` (Platanios et al., equation 8).

    first  the part at step 0
    """
    return min(1.0, math.sqrt(step / total * (1 - first**2) + first**2))


def draw(
    order: Int[Tensor, " windows"], share: float, uniform: Float[Tensor, " drawn"]
) -> Int[Tensor, " drawn"]:
    """Windows from the easiest `share`; `order` holds them from easy to hard, `uniform` is in [0, 1)."""
    count = max(math.ceil(share * len(order)), 1)
    return order[(uniform * count).long().clamp_max(count - 1)]


def by_letters(windows: Windows, generator: torch.Generator) -> Difficulty:
    """Mean surprise of the letters, by how often each occurs."""
    counts = torch.bincount(windows.flatten()).float()
    return -(counts / counts.sum()).log()[windows].mean(1)


def by_pairs(windows: Windows, generator: torch.Generator) -> Difficulty:
    """Mean surprise of each letter after the one before it."""
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


@dataclass(frozen=True)
class Plan:
    """measure: of difficulty, or None for text in any order; longer: more steps, as a factor."""

    measure: Measure | None
    longer: float = 1.0


TIME, POOL = 48, 4000


@hookimpl
def experiment(run: Run) -> None:
    longer = 2.0 if run.without(PLANTED.name) else 1.0
    plans = {
        "letters": Plan(by_letters, longer),
        "pairs": Plan(by_pairs, longer),
        "at random": Plan(at_random),
        "more steps": Plan(None, 2.0),
    }
    ids, alphabet = data.characters(data.text())
    text = data.stretches(ids, run.seed)
    rates = run.pick(smoke=(0.003,), quick=(0.001, 0.003, 0.01), full=(0.001, 0.003, 0.01))
    learn = partial(train, run, text, len(alphabet))
    arms = {"none": Plan(None), **run.arms(plans, control="more steps")}
    best = {
        arm: run.sweep(arm, rates, partial(learn, arm, plan), score="validation loss")
        for arm, plan in arms.items()
    }
    found = {arm: one.result for arm, one in best.items()}
    for arm, (early, late) in found.items():
        run.metric("held-out loss over the part of the training", early, step=1 / 3, arm=arm)
        run.metric("held-out loss over the part of the training", late, step=1, arm=arm)
        run.metric("held-out loss", late, arm=arm)
    run.headline("held-out loss over the part of the training")
    none_early, none_late = found["none"]
    saved = {arm: none_late - late for arm, (_, late) in found.items()}
    run.claim(
        NO_HELP,
        {
            "loss saved by the better curriculum": max(saved["letters"], saved["pairs"]),
            "loss saved by more steps": saved["more steps"],
            "loss saved by an order at random": saved["at random"],
            "loss saved after a third of the steps": none_early - min(found["letters"][0], found["pairs"][0]),
        },
        tuned=list(best.values()),
    )


def train(
    run: Run, text: data.Parts, vocab: int, arm: str, plan: Plan, rate: float
) -> tuple[float, tuple[float, float]]:
    """The loss to choose by; and the losses on another part after a third of the steps, and at the end."""
    steps = round(run.pick(smoke=5, quick=200, full=2000) * plan.longer)
    torch.manual_seed(run.seed)
    model = GPT2(vocab, context=TIME, model=48, heads=2, layers=2).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    pool = data.windows(text.train, TIME + 1, POOL, run.generator("windows to train on"))
    order = torch.arange(POOL)
    if plan.measure is not None:
        order = plan.measure(pool, run.generator("difficulty")).argsort()
    batches, name, early = run.generator("batches"), f"{arm}, rate {rate:g}", math.nan

    def judged(part: tuple[Tensor, ...], stream: str) -> float:
        windows = data.windows(part, TIME + 1, run.pick(smoke=8, quick=256, full=1000), run.generator(stream))
        with torch.no_grad():
            return model.loss(windows.to(run.device)).item()

    run.phase("train")
    for step in run.steps(steps, name):
        share = 1.0 if plan.measure is None else competence(step, max(round(0.7 * steps), 1))
        rows = draw(order, share, torch.rand(8, generator=batches))
        loss = model.loss(pool[rows].to(run.device))
        run.descend(loss, optimizer, step=step, metric="training loss", arm=name, clip=1.0)
        schedule.step()
        if step + 1 == math.ceil(steps / 3):
            early = judged(text.judge, "windows to judge by")
    run.phase("evaluate")
    return judged(text.choose, "windows to choose by"), (early, judged(text.judge, "windows to judge by"))


# Benchmark: a batch from the easiest part


def sorted_anew(difficulty: Tensor, uniform: Tensor, *, share: float) -> Tensor:
    """A Python list, sorted for every batch."""
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
            name="a batch of the easiest third",
            axes={"windows": windows},
            inputs=lambda generator, windows=windows: (
                torch.randn(windows, generator=generator),
                torch.rand(32, generator=generator),
            ),
            variants=(
                Variant(name="sorted anew", role="naive", call=partial(sorted_anew, share=1 / 3)),
                Variant(
                    name="windows in order",
                    role="strong",
                    call=partial(windows_in_order, share=1 / 3),
                    prepare=lambda difficulty, uniform: (difficulty.sort(stable=True).values, uniform),
                ),
                Variant(
                    name="kept in order",
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


# What to write oneself.
def of_steps(_: Draw) -> Iterator[Try]:
    for step in (0, 1, 5, 10, 12):
        yield Try(f"step {step} of 10", step, 10)
    yield Try("from a tenth on", 2, 8, first=0.1)


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
        task="The part of the text to draw from: it grows with the square root of the steps.",
        hints=(
            "The square of the part grows linearly, from first² at step 0 to 1 at `total`.",
            "It never exceeds 1.",
        ),
        tries=of_steps,
    ),
    Exercise(
        name="draw",
        of="draw",
        task="Windows from the easiest share.",
        hints=(
            "The share of the windows is rounded up, and is at least one window.",
            "uniform times that number, rounded down, is a place in the order.",
        ),
        tries=of_orders,
    ),
    Exercise(
        name="rare letters",
        of="by_letters",
        task="How hard each window is: the mean surprise of its letters, in nats.",
        hints=("Count the letters of all windows; a letter's surprise is minus the log of its share.",),
        tries=of_windows,
        tolerance=1e-5,
    ),
    Exercise(
        name="rare pairs",
        of="by_pairs",
        task="The same with each letter's surprise after the letter before it.",
        hints=(
            "A pair is one number: the first letter times the size of the alphabet, plus the second.",
            "Shares are of the pairs that begin with the same letter.",
        ),
        tries=of_windows,
        tolerance=1e-5,
    ),
)
