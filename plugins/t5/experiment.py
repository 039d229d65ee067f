"""Checks the released size, and measures how much span pre-training helps on a task with few labels."""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.data.senses import Senses, senses
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
    at_most,
    hookimpl,
)

from .centroids import Centroids, co_occurrences
from .model import T5
from .spans import corrupt, draw_spans
from .tasks import (
    FIRST_WORD,
    MASK,
    OWNED,
    SENTINEL,
    TASKS,
    TOPICS,
    VOCAB,
    WORDS,
    Pairs,
    mixture,
    spelled,
    task,
)

SIZE = Claim(
    name="the released size",
    sentence="The base configuration has the same number of parameters as the released model.",
    paper=Figure(
        "The paper states 220 million parameters. The released file has 222,903,552",
        where="section 3.1.1",
        read="text",
    ),
    rule=(Bound("parameters", "==", 222_903_552),),
    kind="identity",
)

MIXED = Break(
    "words mixed across texts", "The words are shuffled across the pre-training texts.", "near miss"
)
HALF = Break(
    "half of the pre-training",
    "The network with spans as targets is pre-trained for half of the steps.",
    "near miss",
)
COUNTED = Break(
    "nearest centroid",
    "Words are represented by counts of the words that occur with them in the pre-training texts. A text "
    "gets the topic whose examples have the nearest mean.",
    "rival",
)

STEPS, TUNING = 350, 75
MODEL = (
    "Pre-training uses texts of 12 words from an artificial language. Two consecutive words are removed from "
    "each text. The network is then tuned on 24 examples of 4 words, whose topic is the target. Encoder and "
    "decoder have one layer each, with hidden size 64. Pre-training takes 350 steps at one learning rate, "
    "and tuning takes 75 steps. We use AdamW instead of Adafactor, and no dropout. The dropout in our code "
    "does not apply to attention weights. The learning rate and the number of tuning steps are chosen on 240 "
    "other labelled texts. "
)

HELPS = Claim(
    name="accuracy on 24 examples, pre-trained and from scratch",
    sentence="After tuning on 24 examples, a network that was pre-trained to generate removed spans "
    "classifies the topic of a text more accurately than a network trained from scratch. A rival, nearest "
    "centroids of word counts, also reaches the bound.",
    paper=Figure(
        "The GLUE score is 83.28 with pre-training and 66.22 without. The SQuAD score is 80.88 with "
        "pre-training and 50.31 without",
        where="section 3.1.5, table 1",
        read="table",
    ),
    rule=(at_least("accuracy", "spans", 0.07, minus="from scratch", toward=0.0),),
    control="the same network trained from scratch, with its learning rate and number of steps chosen in the "
    "same way",
    control_arm="from scratch",
    control_reaches=(at_least("accuracy", "from scratch, many examples", 0.8),),
    breaks=(MIXED, COUNTED, UNTRAINED),
    chosen_on=(0, 1, 2),
    headline=True,
    deviations=MODEL
    + "The paper's abstract is about casting many tasks into one format, and about scale. In the paper, "
    "spans gain more than language-model pre-training. Here, pre-training with the second half of a text as "
    "the target gained more (0.22 against 0.13, the mean over ten seeds).",
    history=(
        (
            'Until November 2026 the verdict was "weak" (3 of 5 seeds, same bound). The rival (pre-training '
            "as a language model) is new."
        ),
        (
            "Nearest centroids of word counts are a new rival. They need no network, and their accuracy is "
            "0.20 and 0.11 higher than the control's on seeds 0 and 1."
        ),
        (
            "Until 27 November 2026 pre-training as a language model was a rival, too, and the verdict was "
            '"not specific". It is also pre-training from text to text on unlabelled text, which is what the '
            "paper is about."
        ),
    ),
)

CHEAPER = Claim(
    name="accuracy with spans and whole texts as targets",
    sentence="A network pre-trained to generate only the spans is at most 2 points less accurate than a "
    "network pre-trained to generate the whole text. The targets with spans have a third as many tokens. A "
    "rival, nearest centroids of word counts, has no targets at all.",
    paper=Figure(
        "The GLUE score is 83.28 with spans as targets and 82.32 with the whole text (MASS-style), and spans "
        "make training faster",
        where="section 3.3.2, table 5",
        read="table",
    ),
    rule=(at_least("accuracy", "spans", -0.02, minus="whole text"),),
    guards=(at_most("tokens written", "spans", 0.35, over="whole text"),),
    control="pre-training with the whole text as the target and the same number of masked tokens. Each "
    "network uses its best learning rate from the same grid",
    control_arm="whole text",
    control_reaches=(at_least("accuracy", "whole text", 0.02, minus="no pre-training"),),
    breaks=(HALF, COUNTED, UNTRAINED),
    chosen_on=(0, 1, 2),
    deviations=MODEL + "For the whole text, all removed words are replaced with masks, as in MASS. The "
    "paper's BERT-style objective (82.96 in its table) also replaces some words with other words.",
    history=(
        (
            "Until November 2026 the claim was not judged, because the control gained too little on 2 of 5 "
            "seeds. The bounds are the same. The number of tokens follows from the construction, so this "
            "bound is now a guard. We removed the break that replaced the paper's network with the control."
        ),
        (
            "Then the rival was a language model that predicts the last third of a text. With the second "
            "half as the target, the targets were longer than the guard allows. With the removed words alone "
            "as the target, the accuracy was 0.07 higher than the control's on seed 7101, but that network, "
            "too, generates only what was removed, as the claim says. The test now has 2,000 texts instead "
            "of 600, because the standard error of the difference was 0.020, and at most 0.017 is allowed."
        ),
        (
            'With the last third as the target, the verdict was "not specific". That rival, too, generates '
            "only what was removed, so it was dropped on 27 November 2026. The bound was -0.05, which a "
            "network without pre-training nearly met (-0.062, the mean of five seeds). Nearest centroids "
            "are a new rival."
        ),
    ),
)

LENGTH, BATCH = 12, 64  # of the pre-training texts
RATES = (3e-4, 1e-3, 3e-3)
FEW = 24  # examples


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in T5().parameters())})
    if run.wants(HELPS, CHEAPER):
        compare_objectives(run)


def network(run: Run) -> T5:
    net = T5(VOCAB, model=64, heads=4, dim=16, hidden=256, layers=1, dropout=0.0)
    return net.to(run.device, run.dtype)


def spans(ids: Int[Tensor, "count length"], generator: torch.Generator) -> Pairs:
    """Source and target of span corruption: the text without its spans, and the spans."""
    return corrupt(ids, draw_spans(*ids.shape, generator), SENTINEL)


def whole(ids: Int[Tensor, "count length"], generator: torch.Generator) -> Pairs:
    """Source and target as in MASS: the text with the same number of masked tokens, and the whole text."""
    return ids.masked_fill(draw_spans(*ids.shape, generator), MASK), ids


Objective = Callable[[Int[Tensor, "count length"], torch.Generator], Pairs]


class World(NamedTuple):
    """few and many: labelled examples for tuning"""

    language: Senses
    few: Pairs
    many: Pairs
    chosen: Pairs
    judged: Pairs


class Tuned(NamedTuple):
    """many: whether to tune on many examples; target: number of tokens per pre-training target"""

    many: bool = False
    target: int = 0


def counted(at: Trial) -> Float[Tensor, "vocab vocab"]:
    """Count how often words occur together in the texts on which the network is pre-trained."""
    draw, counts = at.generator("texts"), torch.zeros(VOCAB, VOCAB)
    steps = at.run.pick(smoke=2, quick=STEPS, full=3000)
    for _ in at.steps(steps, "counting words"):
        counts += co_occurrences(at.world.language.draw(BATCH, LENGTH, draw)[0] + FIRST_WORD)
    return counts.to(at.run.device)


def after(objective: Objective, *, mixed: bool = False, share: float = 1.0) -> Arm[Tuned]:
    """An arm that is tuned after pre-training.

    mixed  whether to mix the words of the texts; share  fraction of the usual steps
    """

    def pre_train(at: Trial) -> T5:
        """Pre-train on new texts without labels."""
        run, net = at.run, network(at.run)
        draw, corruption, mixing = (at.generator(what) for what in ("texts", "corruption", "mixing"))
        steps = round(share * run.pick(smoke=2, quick=STEPS, full=3000))
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps + 1, pct_start=0.1)
        run.phase("train")
        for step in at.steps(steps, f"pre-training, {name}", state=(net, optimizer, schedule)):
            ids = at.world.language.draw(BATCH, LENGTH, draw)[0] + FIRST_WORD
            if mixed:
                ids = ids.flatten()[torch.randperm(ids.numel(), generator=mixing)].view_as(ids)
            source, target = objective(ids, corruption)
            loss = net.loss(source.to(run.device), target.to(run.device))
            at.descend(loss, optimizer, step=step, metric="pre-training loss", arm=name, clip=1.0)
            schedule.step()
        return net

    name = f"{objective.__name__}{', mixed' if mixed else ''}"
    pre_train.__name__ = f"pre-training, {name}, {share:g}"
    target = objective(torch.ones(1, LENGTH, dtype=torch.long), torch.Generator())[1]
    return Arm(Tuned(target=target.shape[1]), before=pre_train)


def compare_objectives(run: Run) -> None:
    run.phase("setup")
    language = senses(run.data("language", "world"), words=WORDS, topics=TOPICS, owned=OWNED)
    world = World(
        language,
        task(language, "topic", FEW, run.data("examples", "train")),
        task(language, "topic", run.pick(smoke=60, quick=2000, full=4000), run.data("examples", "train")),
        task(language, "topic", run.pick(smoke=12, quick=240, full=600), run.data("to choose by", "choose")),
        task(language, "topic", run.pick(smoke=12, quick=2000, full=2000), run.data("to judge by", "judge")),
    )
    by_spans = after(spans)
    changed = {
        MIXED: after(spans, mixed=True),
        HALF: after(spans, share=0.5),
        COUNTED: Arm(Tuned(), before=counted),
    }
    table = run.compare(
        HELPS,
        CHEAPER,
        arms={"spans": by_spans, "whole text": after(whole), "from scratch": Arm(Tuned())},
        yardsticks={"from scratch, many examples": Arm(Tuned(many=True)), "no pre-training": Arm(Tuned())},
        attempt=tune,
        read=judge,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation accuracy",
        keep="highest",
        breaks={one.name: {"spans": arm} for one, arm in changed.items()},
        world=world,
    )
    run.headline("accuracy while tuning, rate 0.001")
    if run.wants(SIZE):
        assert by_spans.before
        pre_trained = table.stage(by_spans.before)
        show(run, pre_trained, language)
        show_tasks(run, pre_trained, language)


def tune(at: Trial, arm: Tuned, rate: float) -> tuple[float, tuple[T5 | Centroids, int]]:
    """Tune on labelled pairs with the loss of pre-training, and keep the most accurate step."""
    run, world = at.run, at.world
    if isinstance(at.before, Tensor):
        nearest = Centroids(at.before, world.few)
        return right(nearest, world.chosen).mean().item(), (nearest, arm.target)
    net = deepcopy(at.before) if at.before else network(run)
    examples = world.many if arm.many else world.few
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.0)
    rows, course = at.generator("rows to tune on"), []

    def now() -> tuple[float, T5]:
        course.append(right(net, world.chosen).mean().item())
        return course[-1], deepcopy(net)

    best = at.early_stopping(now)
    steps, gap = run.pick(smoke=(1, 1), quick=(TUNING, 25), full=(400, 40))
    run.phase("train")
    for step in at.steps(steps, f"tuning, {at.name}, rate {rate:g}", state=(net, optimizer, best, course)):
        taken = torch.randint(len(examples[0]), (12,), generator=rows)
        source, target = (part[taken].to(run.device) for part in examples)
        at.descend(net.loss(source, target), optimizer, step=step, metric=f"loss at rate {rate:g}", clip=1.0)
        if (step + 1) % gap == 0:
            best.check()
            at.metric(f"accuracy while tuning, rate {rate:g}", course[-1], step=step + 1)
    score, kept = best.best()
    return score, (kept, arm.target)


def judge(at: Trial, found: Sweep[tuple[T5 | Centroids, int]]) -> dict[str, int | Float[Tensor, " texts"]]:
    net, target = found.chosen
    correct = right(net, at.world.judged)
    at.metric("accuracy", correct.mean().item())
    return {"accuracy": correct, "tokens written": target}


@torch.no_grad()
def right(net: T5 | Centroids, part: Pairs) -> Float[Tensor, " texts"]:
    """1.0 for each text whose generated answer is correct, else 0."""
    source, target = (tensor.to(net.embedding.weight.device) for tensor in part)
    return (net.generate(source, target.shape[1]) == target).all(1).double().cpu()


def show(run: Run, net: T5, language: Senses) -> None:
    """Save a few texts with their removed spans and the generated spans."""
    run.phase("evaluate")
    ids = language.draw(4, LENGTH, run.generator("shown"))[0] + FIRST_WORD
    source, target = spans(ids, run.generator("shown spans"))
    written = net.generate(source.to(run.device), target.shape[1]).cpu()
    lines = [
        f"read     {spelled(read)}\nleft out {spelled(right)}\nwritten  {spelled(found)}\n"
        for read, right, found in zip(source.tolist(), target.tolist(), written.tolist(), strict=True)
    ]
    caption = (
        "Words are numbers, and <A>, <B>, … are sentinels. A generated word is correct if it belongs to the "
        "topic."
    )
    run.text("spans left out and written", "\n".join(lines), caption=caption)


def show_tasks(run: Run, pre_trained: T5, language: Senses) -> None:
    """Section 2.4: tune one network on three tasks at once, then give it one text with each prefix."""
    net, steps = deepcopy(pre_trained), run.pick(smoke=1, quick=700, full=5000)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps + 1, pct_start=0.1)
    drawn = run.generator("three tasks")
    run.phase("train")
    for step in run.steps(steps, "tuning, three tasks"):
        source, target = (part.to(run.device) for part in mixture(language, 16, drawn))
        run.descend(
            net.loss(source, target), optimizer, step=step, metric="loss, three tasks at once", clip=1.0
        )
        schedule.step()
    run.phase("evaluate")
    count, rows = run.pick(smoke=12, quick=400, full=2000), []
    judged = [part.view(len(TASKS), count, -1) for part in mixture(language, count, drawn)]
    for name, source, target in zip(TASKS, *judged, strict=True):
        correct = right(net, (source, target)).mean().item()
        run.metric("accuracy of one network at three tasks", correct, arm=name)
        source[0, 1:] = judged[0][
            0, 0, 1:
        ]  # show the same text (the first text of the first task) in each task
        found = net.generate(source[:1].to(run.device), target.shape[1])[0].tolist()
        rows.append((spelled(source[0].tolist()), spelled(found), correct))
    run.table(
        "three tasks by prefix",
        ("read", "written", "test accuracy"),
        rows,
        caption="Results of one network, trained with one loss. Only the first token distinguishes the "
        "tasks.",
    )
