"""Checks the released model's size, and varies the number of masks per text and of training steps."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import islice
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.data.senses import Senses, senses
from readtrack.plugin import Arm, Break, Run, Sweep, Trial, hookimpl

from ..bert import BERT, Masked, MaskedModel, mask_tokens
from ..bert.experiment import filled_in
from .claims import (
    COUNTED,
    DROPOUT,
    FRESH,
    MIXED,
    SAME_MASK,
    SIZE,
    TOPICS_OF_NEW,
    TWO_MASKS,
    UNDERTRAINED,
    VARIED,
)
from .model import RoBERTa
from .topics import Topics

WORDS, TOPICS, LENGTH, TEXTS, BATCH, PASSES = 48, 12, 10, 200, 50, 40
RATES = (1e-3, 3e-3, 1e-2)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in RoBERTa().parameters())})
    if run.wants(VARIED, FRESH):
        compare_masks(run)
    if run.wants(UNDERTRAINED):
        train_longer(run)


def network(dropout: float = 0.0) -> MaskedModel:
    """The small network. The last id of the vocabulary is the mask."""
    std = 0.02 * (768 / 64) ** 0.5  # the paper's 0.02 for hidden size 768, scaled to this hidden size
    size = {"context": LENGTH, "segments": 1, "model": 64, "heads": 4, "layers": 1}
    return MaskedModel(BERT(WORDS + 1, **size, std=std, eps=1e-5, dropout=dropout), std=std)


class Masks:
    """The masks of a corpus over many passes.

    copies  number of stored masked copies, which are used in turn; 0 draws new masks in each pass
    """

    def __init__(self, corpus: Int[Tensor, "texts tokens"], copies: int, generator: torch.Generator) -> None:
        self.corpus = corpus
        self.generator = generator
        self.stored = [self.draw() for _ in range(copies)]

    def draw(self) -> Masked:
        return mask_tokens(self.corpus, self.generator, vocab=WORDS, mask=WORDS)

    def of_pass(self, index: int) -> Masked:
        return self.stored[index % len(self.stored)] if self.stored else self.draw()


class World(NamedTuple):
    """chosen and judged: validation and test texts, with the same masks for all arms"""

    language: Senses
    corpus: Int[Tensor, "texts tokens"]
    chosen: Masked
    judged: Masked

    @classmethod
    def of(cls, run: Run, *, texts: int) -> "World":
        """texts: the number of texts in the corpus"""
        language = senses(run.data("language", "world"), words=WORDS, topics=TOPICS)
        corpus, _ = language.draw(texts, LENGTH, run.data("corpus", "train"))
        chosen, judged = (held_out(run, language, count, part) for part, count in HELD_OUT.items())
        return cls(language, corpus, chosen, judged)

    def frequencies(self) -> float:
        """Loss of a unigram model in nats per word, from the number of topics that contain each word."""
        counts = torch.bincount(self.language.own.flatten(), minlength=WORDS).double()
        return -(torch.xlogy(counts, counts / counts.sum()).sum() / counts.sum()).item()


HELD_OUT: dict[Literal["choose", "judge"], int] = {"choose": 200, "judge": 1000}


def held_out(run: Run, language: Senses, count: int, part: Literal["choose", "judge"]) -> Masked:
    texts, _ = language.draw(count, LENGTH, run.data(f"texts to {part} by", part))
    return mask_tokens(texts, run.data(f"masks to {part} by", part), vocab=WORDS, mask=WORDS)


Batches = Callable[[Trial], tuple[int, Iterator[Masked]]]  # the number of steps, and the batch of each step


class Recipe(NamedTuple):
    """by: what the compared arms differ in, for the curves; copies: number of stored masks, 0 for none"""

    batches: Batches
    by: Literal["mask", "length"]
    copies: int = 0
    dropout: float = 0.0


Fit = Callable[[Trial], tuple[float, "Trained"]]


def over_the_corpus(copies: int, dropout: float = 0.0) -> Recipe:
    """Passes over the corpus, each in a new random order."""

    def batches(at: Trial) -> tuple[int, Iterator[Masked]]:
        corpus, passes = at.world.corpus, at.run.pick(smoke=2, quick=PASSES, full=2 * PASSES)
        masks, order = Masks(corpus, copies, at.generator("masks")), at.generator("order")

        def pieces() -> Iterator[Masked]:
            for index in range(passes):
                masked = masks.of_pass(index)
                for rows in torch.randperm(len(corpus), generator=order).split(BATCH):
                    yield Masked(*(part[rows] for part in masked))

        return passes * -(-len(corpus) // BATCH), pieces()

    return Recipe(batches, "mask", copies, dropout)


def shorter(run: Run) -> int:
    """The number of steps of the shorter training."""
    return run.pick(smoke=1, quick=120, full=400)


def on_new_texts(times: int, *, mixed: bool = False) -> Recipe:
    """Batches of new texts for `times` as many steps as in the shorter training.

    mixed  whether words are mixed across a batch's texts after the steps of the shorter training
    """

    def batches(at: Trial) -> tuple[int, Iterator[Masked]]:
        steps = times * shorter(at.run)
        drawn, masks = at.generator("new texts"), at.generator("masks of new texts")

        def pieces() -> Iterator[Masked]:
            for step in range(steps):
                texts, _ = at.world.language.draw(BATCH, LENGTH, drawn)
                if mixed and step >= shorter(at.run):
                    texts = texts.flatten()[torch.randperm(texts.numel(), generator=drawn)].view_as(texts)
                yield mask_tokens(texts, masks, vocab=WORDS, mask=WORDS)

        return steps, pieces()

    return Recipe(batches, "length")


def fit_topics(at: Trial) -> tuple[float, "Trained"]:
    """Fit the rival, a topic mixture. It has no masks, steps or learning rate."""
    corpus, draw = at.world.corpus.to(at.run.device), at.generator("topics")
    fitted = (Topics(corpus, WORDS, count, draw) for count in (12, 16, 24) for _ in range(5))
    scored = ((nats_of(at.run, topics, at.world.chosen).mean().item(), topics) for topics in fitted)
    score, best = min(scored, key=lambda one: one[0])
    return score, Trained(best, 0)


def compare_masks(run: Run) -> None:
    """Compare one mask per text, ten masks and fresh masks, with the same number of passes over a corpus."""
    run.phase("setup")
    world = World.of(run, texts=run.pick(smoke=20, quick=TEXTS, full=2 * TEXTS))
    changed: dict[Break, Recipe | Fit] = {
        SAME_MASK: over_the_corpus(1),
        TWO_MASKS: over_the_corpus(2),
        DROPOUT: over_the_corpus(1, dropout=0.1),
        COUNTED: fit_topics,
    }
    draws = "how much they draw: a mask for each pass, while the other arms draw only the stored masks"
    run.compare(
        VARIED,
        FRESH,
        arms={
            "fresh masks": Arm(over_the_corpus(0)),
            "one mask": Arm(over_the_corpus(1)),
            "ten masks": Arm(over_the_corpus(10)),
        },
        attempt=train,
        read=judge,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation nats",
        references={"unigram": {"nats": world.frequencies()}},
        breaks={one.name: {"fresh masks": Arm(recipe)} for one, recipe in changed.items()},
        world=world,
        unequal={"fresh masks": draws},
    )
    run.headline("held-out nats by mask, rate 0.003")


def train_longer(run: Run) -> None:
    """Train the same network for a number of steps and for four times as many, always on new texts."""
    world = World.of(run, texts=shorter(run) * BATCH)
    changed: dict[Break, Recipe | Fit] = {MIXED: on_new_texts(4, mixed=True), TOPICS_OF_NEW: fit_topics}
    more = "this is what we compare, and it favours the longer training"
    what = "their loop lengths, their step counts, their updates, their learning rates"
    table = run.compare(
        UNDERTRAINED,
        arms={"longer training": Arm(on_new_texts(4)), "shorter training": Arm(on_new_texts(1))},
        attempt=train,
        read=judge,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation nats",
        references={"unigram": {"nats": world.frequencies()}},
        breaks={one.name: {"longer training": Arm(recipe)} for one, recipe in changed.items()},
        world=world,
        unequal={"longer training": f"{what}, how much they draw: {more}"},
    )
    if run.wants(SIZE):  # reported, not judged
        model = table.sweeps["longer training"].chosen.model
        filled_in(run, model, table.world.language, LENGTH)


class Trained(NamedTuple):
    """A network at its best step, or the rival."""

    model: MaskedModel | Topics
    copies: int


def train(at: Trial, recipe: Recipe | Fit, rate: float) -> tuple[float, Trained]:
    if not isinstance(recipe, Recipe):
        return recipe(at)
    run, world = at.run, at.world
    model = network(recipe.dropout).to(run.device, run.dtype)
    steps, batches = recipe.batches(at)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1, pct_start=0.1)

    course: list[float] = []

    def held_out_now() -> tuple[float, MaskedModel]:
        course.append(nats_of(run, model, world.chosen).mean().item())
        return course[-1], deepcopy(model)

    best = at.early_stopping(held_out_now, keep="lowest")
    run.phase("train")
    read = 0
    for step in at.steps(steps, f"{at.name}, rate {rate:g}"):
        masked = next(islice(batches, step - read, None))
        read = step + 1
        loss = model.masked_loss(Masked(*(part.to(run.device) for part in masked)))
        curve = f"by {recipe.by}, rate {rate:g}"
        at.descend(loss, optimizer, step=step, metric=f"training loss {curve}", clip=1.0)
        schedule.step()
        if (step + 1) % max(steps // 20, 1) == 0:
            best.check()
            at.metric(f"held-out nats {curve}", course[-1], step=step + 1)
    run.phase("evaluate")
    score, kept = best.best()
    return score, Trained(kept, recipe.copies)


def judge(at: Trial, found: Sweep[Trained]) -> dict[str, float | Tensor]:
    nats = nats_of(at.run, found.chosen.model, at.world.judged)
    at.metric("held-out nats of a masked word", nats.mean().item())
    return {"nats": nats, "copies of the corpus stored": max(found.chosen.copies, 1)}


def nats_of(run: Run, model: MaskedModel | Topics, masked: Masked) -> Float[Tensor, " chosen"]:
    """Loss in nats of each masked word."""
    with run.evaluating(model):
        logits = model(masked.ids.to(run.device))
    chosen = masked.chosen.to(run.device)
    nats = F.cross_entropy(logits[chosen], masked.original.to(run.device)[chosen], reduction="none")
    return nats.double().cpu()
