"""The claims: the released size, then few labels with pre-training and without it."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import GPT, Classifier, framed

SIZE = Claim(
    name="the released size",
    sentence="The paper's configuration has the parameters of the released model.",
    paper=Figure(
        "12 layers, width 768, 12 heads; the released file holds 116,534,784",
        where="section 4.1",
        read="text",
    ),
    rule=(Bound("parameters", "==", 116_534_784),),
    kind="identity",
)

UNORDERED = Break("words in no order", "What is pre-trained on has the same words in a random order.")

FEW_LABELS = Claim(
    name="few labels are enough",
    sentence="Pre-trained on plain text, the same network does more with few labels than from scratch, more "
    "than a table of the labelled words, and at least what it does from scratch with four times as many.",
    paper=Figure(
        "without pre-training the average over the tasks falls from 74.7 to 59.9",
        where="section 5, table 5",
        read="table",
    ),
    rule=(
        Bound("accuracy gained with 5 labels a class", ">=", 0.3, direction=0.0),
        Bound("accuracy with 5 labels, pre-trained - by heart", ">=", 0.2, direction=0.0),
        # Equal arms give -0.3 or less here: what four times the labels are worth from scratch.
        Bound("accuracy with 5 labels, pre-trained - with 20 from scratch", ">=", 0.0),
    ),
    control="the same network from scratch, at the best of the same rates and steps; both may tune for as "
    "long as pre-training took",
    control_reaches=(Bound("accuracy from scratch with 100 labels a class", ">=", 0.8),),
    breaks=(UNORDERED,),
    shortcuts=("accuracy with 5 labels, by heart", "accuracy with 20 labels, by heart"),
    chosen_on=(0, 1, 2),
    deviations="A made-up language of 128 words in 8 hidden classes, texts of 4 words; the class of the last "
    "word is to be named. Two layers of width 64, no dropout, where the paper has 0.1. Beside the few labels "
    "that are trained on, 200 labelled texts choose the rate and the step.",
    headline=True,
)

WORDS, CLASSES, LENGTH = 128, 8, 4
START, EXTRACT = WORDS, WORDS + 1
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
PATIENCE = 2  # evaluations without a gain, after which tuning ends

Part = tuple[Int[Tensor, "_ _"], Int[Tensor, " _"]]  # texts and labels
Make = Callable[[], GPT]


@dataclass(frozen=True)
class Language:
    """Words of hidden classes: a class is followed by one of two others, and says nothing of the word."""

    class_of: Int[Tensor, " words"]
    follows: Float[Tensor, "classes classes"]  # the chance of the next class (last) after this one

    @classmethod
    def made(cls, generator: torch.Generator) -> "Language":
        class_of = torch.arange(WORDS)[torch.randperm(WORDS, generator=generator)] % CLASSES
        order = torch.randperm(CLASSES, generator=generator)
        follows = torch.zeros(CLASSES, CLASSES)
        for shift, chance in ((1, 0.7), (3, 0.3)):
            follows[order, order.roll(shift)] = chance
        return cls(class_of, follows)

    def draw(self, count: int, generator: torch.Generator) -> Part:
        """`count` texts, and the class of the last word of each."""
        words = self.class_of.argsort().view(CLASSES, -1)
        current = torch.randint(CLASSES, (count,), generator=generator)
        text = []
        for _ in range(LENGTH):
            text.append(words[current, torch.randint(words.shape[1], (count,), generator=generator)])
            last, current = current, torch.multinomial(self.follows[current], 1, generator=generator)[:, 0]
        return torch.stack(text, 1), last


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            run.claim(SIZE, {"parameters": parameters(GPT())})
    if run.wants(FEW_LABELS):
        learn_from_few(run)


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def network(run: Run) -> GPT:
    """The toy: every arm begins from the same weights."""
    torch.manual_seed(run.seed)
    gpt = GPT(WORDS + 2, context=LENGTH + 2, model=64, heads=4, layers=2, std=STD, dropout=0.0)
    return gpt.to(run.device, run.dtype)


STD = 0.02 * math.sqrt(768 / 64)  # as large beside its width as the paper's 0.02 is at 768


def learn_from_few(run: Run) -> None:
    run.phase("setup")
    language = Language.made(run.generator("language"))
    learned = cache(partial(pre_train, run, language))

    arms = run.arms({"pre-trained": learned, "from scratch": partial(network, run)}, control="from scratch")
    points = [("pre-trained", 5), ("from scratch", 5), ("from scratch", 20), ("from scratch", 100)]
    chosen = language.draw(run.pick(smoke=12, quick=200, full=600), run.generator("to choose by"))
    judged = language.draw(run.pick(smoke=12, quick=600, full=2000), run.generator("to judge by"))
    best: dict[tuple[str, int], Best[float]] = {}
    for arm, count in points:
        labelled = few(language, count, run.generator("labelled"))
        # What the control can do at all is no part of the comparison: two rates will do for it.
        rates = run.pick(smoke=RATES[2:3], quick=RATES[1:3] if count == 100 else RATES, full=RATES)
        attempt = partial(tune, run, arm, arms[arm], labelled, chosen, judged)
        name = f"{arm}, {count} labels"
        best[arm, count] = run.sweep(name, rates, attempt, score="validation accuracy", keep="highest")
        run.metric("accuracy over labels a class", best[arm, count].result, step=count, arm=arm)
    if run.wants(SIZE):  # not needed to judge
        labelled, rate = few(language, 20, run.generator("labelled")), best["pre-trained", 5].value
        _, value = tune(run, "pre-trained", arms["pre-trained"], labelled, chosen, judged, rate)
        run.metric("accuracy over labels a class", value, step=20, arm="pre-trained")
    heart = {n: by_heart(few(language, n, run.generator("labelled")), judged) for n in (5, 20, 100)}
    for count, value in heart.items():
        run.metric("accuracy over labels a class", value, step=count, arm="by heart")
    run.headline("accuracy over labels a class")
    accuracy = {point: one.result for point, one in best.items()}
    values = {
        "accuracy gained with 5 labels a class": accuracy["pre-trained", 5] - accuracy["from scratch", 5],
        "accuracy with 5 labels, pre-trained - with 20 from scratch": accuracy["pre-trained", 5]
        - accuracy["from scratch", 20],
        "accuracy with 5 labels, pre-trained - by heart": accuracy["pre-trained", 5] - heart[5],
        "accuracy from scratch with 100 labels a class": accuracy["from scratch", 100],
        "accuracy with 5 labels, by heart": heart[5],
        "accuracy with 20 labels, by heart": heart[20],
    }
    run.claim(FEW_LABELS, values, tuned=[one for (_, count), one in best.items() if count < 100])


def few(language: Language, count: int, generator: torch.Generator) -> Part:
    """`count` texts of each class."""
    texts, label = language.draw(100 + 4 * count * CLASSES, generator)
    rows = torch.cat([(label == one).nonzero()[:count, 0] for one in range(CLASSES)])
    return texts[rows], label[rows]


def pre_train(run: Run, language: Language) -> GPT:
    """Equation 1 on fresh texts that nobody has labelled."""
    gpt = network(run)
    draw, order = run.generator("texts"), run.generator("order")
    steps = run.pick(smoke=3, quick=300, full=2000)
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps + 1, pct_start=0.1)
    run.phase("train")
    for step in run.steps(steps, "pre-training"):
        ids, _ = language.draw(192, draw)
        if run.without(UNORDERED.name):
            ids = ids.flatten()[torch.randperm(ids.numel(), generator=order)].view_as(ids)
        run.descend(gpt.loss(ids.to(run.device)), optimizer, step=step, metric="pre-training loss", clip=1.0)
        schedule.step()
    return gpt


def tune(
    run: Run, arm: str, make: Make, labelled: Part, chosen: Part, judged: Part, rate: float
) -> tuple[float, float]:
    """Equation 5, stopped at the step that is best on `chosen`: the accuracy there and on `judged`.

    It may take as many steps as pre-training, and ends early after `PATIENCE` evaluations without a gain.
    """
    torch.manual_seed(run.seed)
    classifier = Classifier(deepcopy(make()), CLASSES).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=rate, weight_decay=0.01)
    rows = run.generator("rows to tune on")
    count, best, last_gain = len(labelled[0]), (-1.0, 0.0), 0
    steps, gap = run.pick(smoke=(2, 2), quick=(300, 30), full=(2000, 40))
    run.phase("train")
    for step in run.steps(steps, f"tuning, {arm}, {count} texts, rate {rate:g}"):
        taken = torch.randint(count, (min(count, 32),), generator=rows)
        ids = framed(labelled[0][taken], START, EXTRACT).to(run.device)
        loss = classifier.loss(ids, labelled[1][taken].to(run.device))
        run.descend(
            loss, optimizer, step=step, metric=f"loss with {count} texts, rate {rate:g}", arm=arm, clip=1.0
        )
        if (step + 1) % gap == 0:
            score = accuracy(classifier, chosen)
            if score > best[0]:
                best, last_gain = (score, accuracy(classifier, judged)), step
            elif step - last_gain >= PATIENCE * gap:
                break
    return best


@torch.no_grad()
def accuracy(classifier: Classifier, part: Part) -> float:
    device = classifier.output.weight.device
    found = classifier(framed(part[0], START, EXTRACT).to(device)).argmax(1).cpu()
    return (found == part[1]).double().mean().item()


def by_heart(labelled: Part, judged: Part) -> float:
    """Who learns the labelled words by heart, and guesses at all others."""
    seen = dict(zip(labelled[0][:, -1].tolist(), labelled[1].tolist(), strict=True))
    right = [
        seen[word] == label if word in seen else 1 / CLASSES
        for word, label in zip(judged[0][:, -1].tolist(), judged[1].tolist(), strict=True)
    ]
    return sum(right) / len(right)
