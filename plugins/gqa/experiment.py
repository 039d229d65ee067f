"""The claims: equal heads may be averaged, the cache, the order of the conversions, what groups keep."""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from .model import GroupedQueryAttention, How, convert

HEADS = 8
GROUPS = 2
ALL_GROUPS = (1, 2, 4, HEADS)
TOKENS = 48  # of a window
UPTRAINING = 0.05  # of the steps of pre-training: section 3.1

EQUAL_HEADS = Claim(
    name="nothing lost where heads are equal",
    sentence="Averaging the heads of a group changes nothing where they are equal.",
    paper=Figure(
        "The projections of a group's heads are averaged; no figure.", where="section 2.2", read="text"
    ),
    rule=(Bound("change of the result by converting equal heads", "<=", 1e-5),),
    kind="identity",
    control="the same conversion of heads that differ",
    control_reaches=(Bound("change of the result by converting other heads", ">=", 0.01),),
)

CACHE = Claim(
    name="the cache shrinks with the groups",
    sentence="One head of keys and values makes the cache smaller by the number of heads, G groups leave G "
    "times that, and as many parameters go with it.",
    paper=Figure("a cache smaller by a factor of H; G-fold of one head's", where="section 2.2"),
    rule=(
        Bound("bytes of the cache, all heads / one head", "==", HEADS),
        Bound("bytes of the cache, two groups / one head", "==", 2),
        Bound("parameters of keys and values, all heads / one head", "==", HEADS),
    ),
    kind="identity",
    control="as many heads of keys and values as of queries",
)

NO_CHECKPOINT = Break("no checkpoint", "What is converted was never trained: there is nothing to keep.")
ONE_GROUP = Break("one group", "The groups share a single head of keys and values.")

ORDER = Claim(
    name="averaging keeps most",
    sentence="Converted to one head and trained on for 5 % of the steps, a model predicts best if the heads "
    "were averaged, worse if the first was taken, worst if the head was drawn anew.",
    paper=Figure(
        "the mean before the first head, and that before random ones (T5-Large)",
        where="section 3.3, figure 4",
        read="text",
    ),
    rule=(
        Bound("nats lost by the first head over the mean", ">=", 0.02, direction=0.0),
        Bound("nats lost by a random head over the first", ">=", 0.01, direction=0.0),
    ),
    control="the same model and as many further steps, the head of keys and values drawn anew",
    control_reaches=(Bound("nats saved by pre-training over letter frequencies", ">=", 0.5),),
    breaks=(NO_CHECKPOINT,),
    chosen_on=(0, 1),
    deviations="A causal character model of two layers, 8 heads of width 8, a learned bias over distances, "
    "instead of T5's decoder; nats a character instead of scores of tasks.",
)

NEARLY = Claim(
    name="nearly all of the quality, most of the speed",
    sentence="Few groups lose less than half of what one head loses against all heads, and decode twice as "
    "fast as all heads do.",
    paper=Figure(
        "T5-XXL: all heads 47.2 in 1.51 s, one head 46.6 in 0.24 s, eight groups of 64 heads 47.1 in 0.28 s",
        where="table 1",
        read="table",
    ),
    rule=(
        Bound("loss by two groups / loss by one head", "<=", 0.5, direction=1.0),
        Speedup(
            "one token", over="all heads", threshold=2.0, axes={"tokens": 4096, "groups": 4}, mode="forward"
        ),
    ),
    control="all heads, trained on for as many steps; one head",
    control_reaches=(Bound("nats lost by one head", ">=", 0.05),),
    breaks=(ONE_GROUP,),
    chosen_on=(0, 1),
    deviations="As above: 8 heads in 2 groups. The time is that of attention alone, 32 heads of 64 in 4 "
    "groups, one token at 4,096 before it.",
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(EQUAL_HEADS):
        convert_equal_heads(run)
    if run.wants(CACHE):
        count_cache(run)
    if run.wants(ORDER, NEARLY):
        compare(run)


def convert_equal_heads(run: Run) -> None:
    """The result of one attention before and after; a group's heads are equal, or are not."""
    torch.manual_seed(run.seed)
    x = torch.randn(2, 16, 64, generator=run.generator("tokens")).to(run.device, run.dtype)
    changes = {}
    for arm in ("equal", "other"):
        attention = GroupedQueryAttention(64, HEADS, HEADS).to(run.device, run.dtype)
        if arm == "equal":
            with torch.no_grad():
                for layer in (attention.key, attention.value):
                    heads = layer.weight.unflatten(0, (GROUPS, HEADS // GROUPS, -1))
                    heads.copy_(heads[:, :1].clone().expand_as(heads))
        converted = convert(attention, GROUPS)
        with torch.no_grad():
            change = (converted(x, causal=True) - attention(x, causal=True)).abs().max().item()
        changes[f"change of the result by converting {arm} heads"] = change
    run.claim(EQUAL_HEADS, changes)


def count_cache(run: Run) -> None:
    """What one layer keeps of a token, and its parameters, by the number of groups."""
    x = torch.zeros(1, 1, 64, device=run.device, dtype=run.dtype)
    kept, weights = {}, {}
    for groups in ALL_GROUPS:
        attention = GroupedQueryAttention(64, HEADS, groups).to(x)
        _, k, v = attention.project(x)
        kept[groups] = k.nbytes + v.nbytes
        weights[groups] = attention.key.weight.numel() + attention.value.weight.numel()
        run.metric("bytes of the cache a token", kept[groups], step=groups)
        run.metric("parameters of attention", sum(w.numel() for w in attention.parameters()), step=groups)
    run.claim(
        CACHE,
        {
            "bytes of the cache, all heads / one head": kept[HEADS] / kept[1],
            "bytes of the cache, two groups / one head": kept[2] / kept[1],
            "parameters of keys and values, all heads / one head": weights[HEADS] / weights[1],
        },
    )


class Block(nn.Module):
    def __init__(self, model: int) -> None:
        super().__init__()
        self.attention = GroupedQueryAttention(model, HEADS, HEADS)
        self.norms = nn.ModuleList(nn.LayerNorm(model) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(model, 4 * model), nn.GELU(), nn.Linear(4 * model, model))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x), bias=bias, causal=True)
        return x + self.mlp(self.norms[1](x))


class Characters(nn.Module):
    """A causal model of characters; each head has a learned bias for each distance, shared by the layers."""

    def __init__(self, vocab: int, *, model: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, model)
        self.bias = nn.Parameter(torch.zeros(HEADS, TOKENS))
        self.blocks = nn.ModuleList(Block(model) for _ in range(layers))
        self.norm = nn.LayerNorm(model)
        self.readout = nn.Linear(model, vocab)

    def forward(self, text: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        place = torch.arange(text.shape[1], device=text.device)
        bias = self.bias[:, (place[:, None] - place).clamp(min=0)]
        x = self.embed(text)
        for block in self.blocks:
            x = block(x, bias)
        return self.readout(self.norm(x))

    def loss(self, text: Int[Tensor, "batch characters"]) -> Float[Tensor, ""]:
        """Mean nats a character, of all but the first."""
        return F.cross_entropy(self(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


Conversion = Callable[[GroupedQueryAttention], GroupedQueryAttention]


def keep(attention: GroupedQueryAttention) -> GroupedQueryAttention:
    return attention


def arms_of(run: Run) -> dict[str, Conversion]:
    """All heads and four groups are only compared with, so that a null run leaves them as they are: there,
    every other arm is one averaged head."""

    def to(groups: int, how: How) -> Conversion:
        return partial(convert, groups=groups, how=how, generator=run.generator("random heads"))

    few = 1 if run.without(ONE_GROUP.name) else GROUPS
    arms = run.arms(
        {
            "one head, mean": to(1, "mean"),
            "one head, first": to(1, "first"),
            "one head, random": to(1, "random"),
            "two groups, mean": to(few, "mean"),
        },
        control="one head, mean",
    )
    arms |= {"four groups, mean": to(4, "mean"), "all heads": keep}
    wanted = {"one head, mean"}
    if run.wants(ORDER):
        wanted |= {"one head, first", "one head, random"}
    if run.wants(NEARLY):
        wanted |= {"two groups, mean", "four groups, mean", "all heads"}
    return {arm: conversion for arm, conversion in arms.items() if arm in wanted}


def compare(run: Run) -> None:
    """One pre-training, then each conversion of it, trained on."""
    run.phase("setup")
    ids, alphabet = data.characters(data.text())
    text = data.stretches(ids, run.seed)
    steps = run.pick(smoke=4, quick=600, full=4000)
    torch.manual_seed(run.seed)
    trained = Characters(len(alphabet)).to(run.device, run.dtype)
    checkpoint = deepcopy(trained) if run.without(NO_CHECKPOINT.name) else trained
    train(run, trained, text, steps=steps, rate=RATE, arm="pre-training")
    losses = {"before": evaluate(run, trained, text.judge)}
    run.metric("held-out loss", losses["before"], arm="pre-trained")

    extra = max(round(UPTRAINING * steps), 1)
    rates = run.pick(smoke=(RATE,), quick=RATES, full=RATES)
    best: dict[str, Best[Characters]] = {}
    for arm, conversion in arms_of(run).items():
        start = deepcopy(checkpoint)
        for block in start.blocks:
            block.attention = conversion(block.attention)
        run.metric("held-out loss over further steps", evaluate(run, start, text.judge), step=0, arm=arm)

        def go_on(rate: float, start: Characters = start, arm: str = arm) -> tuple[float, Characters]:
            model = deepcopy(start)
            train(run, model, text, steps=extra, rate=rate, arm=f"{arm}, rate {rate:g}")
            return evaluate(run, model, text.choose), model

        best[arm] = run.sweep(arm, rates, go_on, score="validation loss")
        losses[arm] = evaluate(run, best[arm].result, text.judge)
        run.metric("held-out loss over further steps", losses[arm], step=extra, arm=arm)
        run.metric("held-out loss", losses[arm], arm=arm)
        if not arm.startswith(("one head, first", "one head, random")):
            groups = best[arm].result.blocks[0].attention.groups
            run.metric("held-out loss over groups", losses[arm], step=groups, arm="mean")
    run.headline("held-out loss over further steps")
    state(run, losses, best, letter_loss(text, len(alphabet)))


RATE = 4e-3
RATES = (5e-4, 1.5e-3, 4.5e-3, 1.35e-2)


def state(run: Run, losses: dict[str, float], best: dict[str, Best[Characters]], letters: float) -> None:
    mean = losses["one head, mean"]
    if run.wants(ORDER):
        values = {
            "nats lost by the first head over the mean": losses["one head, first"] - mean,
            "nats lost by a random head over the first": losses["one head, random"]
            - losses["one head, first"],
            "nats saved by pre-training over letter frequencies": letters - losses["before"],
        }
        run.claim(ORDER, values, tuned=[best[f"one head, {how}"] for how in ("mean", "first", "random")])
    if run.wants(NEARLY):
        lost, kept = mean - losses["all heads"], losses["two groups, mean"] - losses["all heads"]
        values = {
            "loss by two groups / loss by one head": kept / lost if lost > 0 else math.nan,
            "nats lost by one head": lost,
        }
        run.claim(
            NEARLY, values, tuned=[best[a] for a in ("one head, mean", "two groups, mean", "all heads")]
        )


def train(run: Run, model: Characters, text: data.Parts, *, steps: int, rate: float, arm: str) -> None:
    """Adam, the rate climbing over the first tenth: fresh optimiser state on trained weights needs that."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / max(steps // 10, 1), 1.0))
    batches = run.generator(f"batches, {steps} steps")
    run.phase("train")
    for step in run.steps(steps, arm):
        loss = model.loss(data.windows(text.train, TOKENS + 1, 8, batches).to(run.device))
        run.descend(loss, optimizer, step=step, arm=arm, clip=1.0)
        schedule.step()


@torch.no_grad()
def evaluate(run: Run, model: Characters, pieces: tuple[Tensor, ...]) -> float:
    """Nats a character on windows that are the same for every arm."""
    run.phase("evaluate")
    count = run.pick(smoke=4, quick=128, full=1024)
    return model.loss(data.windows(pieces, TOKENS + 1, count, run.generator("windows")).to(run.device)).item()


def letter_loss(text: data.Parts, vocab: int) -> float:
    """Nats a character when each is predicted by how often it stands in the text to train on."""
    counts = torch.bincount(torch.cat(text.train), minlength=vocab).double() + 1
    return -(counts / counts.sum()).log()[torch.cat(text.judge)].mean().item()
