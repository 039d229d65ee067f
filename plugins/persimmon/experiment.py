"""The claims: the released size, rates with and without the norm, and zeros at no cost."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from .model import Persimmon, squared_relu

SIZE = Claim(
    name="the released size",
    sentence="This folder's defaults have the parameters of the released model.",
    paper=Figure("9.3 billion with unused embeddings; the released files 9,397,175,296", read="secondary"),
    rule=(Bound("parameters", "==", 9_397_175_296),),
    kind="identity",
)

NO_NORM = Break("no norm", "Queries and keys stay as they are.")
LEAKY = Break("leaky", "What is negative keeps a hundredth of its size: nothing is zero.")

WIDER = Claim(
    name="a wider range of rates",
    sentence="With normalised queries and keys a model trains well at rates that are several times as high.",
    paper=Figure("normalised for stability; the post shows no ablation", where="the post", read="secondary"),
    rule=(Bound("highest rate near the best loss, norm / none", ">=", 2.0, direction=1.1, ratio=True),),
    guards=(Bound("largest score, norm / its bound", "<=", 1.001),),
    control="the same model without the norm, over the same rates, no gradients clipped",
    control_reaches=(Bound("nats saved over letter frequencies, no norm", ">=", 0.3),),
    breaks=(NO_NORM,),
    chosen_on=(0, 1),
    deviations="A character model of two layers and width 48, 90 steps. Near is within 10 % of an arm's own "
    "lowest loss.",
)

SPARSE = Claim(
    name="zeros for nothing",
    sentence="With squared ReLU at least half of the hidden numbers are zero, and the model predicts as well "
    "as with GELU.",
    paper=Figure(
        "often more than 90 % zeros, unlike SwiGLU and GELU", where="the post, footnote 2", read="secondary"
    ),
    rule=(
        Bound("share of zeros", ">=", 0.5),
        Bound("loss, squared ReLU / GELU", "<=", 1.01, direction=1.03, ratio=True),
    ),
    control="GELU; each at the best of the same rates",
    control_reaches=(Bound("nats saved over letter frequencies, GELU", ">=", 0.3),),
    breaks=(LEAKY,),
    shortcuts=("share of zeros, ReLU",),
    chosen_on=(0, 1),
    deviations="As above.",
)

NINETY = Claim(
    name="nine zeros in ten",
    sentence="With squared ReLU at least 90 % of the hidden numbers are zero.",
    paper=SPARSE.paper,
    rule=(Bound("share of zeros", ">=", 0.9, direction=0.5),),
    control="GELU, which has none",
    breaks=(LEAKY,),
    chosen_on=(0, 1),
    deviations="As above: 90 steps of training, where the released model had hundreds of thousands.",
)

SKIPPED = Claim(
    name="zeros save time",
    sentence="For one token, reading only the rows whose hidden number is not zero is faster than all.",
    paper=Figure("opportunities for faster inference", where="the post, footnote 2", read="secondary"),
    rule=(Speedup("the second product", over="strong", threshold=1.5, axes={"share of zeros": 0.95}),),
    control="the product with all rows",
    deviations="One token of width 1,024 on a CPU.",
)

TOKENS = 48  # of a window


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):  # shapes alone: nothing is stored
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in Persimmon().parameters())})
    if run.wants(WIDER, SPARSE, NINETY):
        ids, alphabet = data.characters(data.text())
        text = data.stretches(ids, run.seed)
        counts = torch.bincount(torch.cat(text.train), minlength=len(alphabet)).double() + 1
        letters = -(counts / counts.sum()).log()[torch.cat(text.judge)].mean().item()
        make = partial(Persimmon, len(alphabet), model=48, heads=4, layers=2, hidden=192, std=0.1)
        if run.wants(WIDER):
            compare_rates(run, make, text, letters)
        if run.wants(SPARSE, NINETY):
            count_zeros(run, make, text, letters)


class Trained(NamedTuple):
    """network; loss: nats a character on what nothing was chosen by."""

    network: Persimmon
    loss: float


Make = Callable[[], Persimmon]


def compare_rates(run: Run, make: partial[Persimmon], text: data.Parts, letters: float) -> None:
    """The loss over the rate, with and without the norm."""
    arms = run.arms(
        {
            "norm": partial(make, normalised=not run.without(NO_NORM.name)),
            "no norm": partial(make, normalised=False),
        },
        control="no norm",
    )
    rates = run.pick(smoke=(1e-2, 1e-1), quick=WIDE, full=WIDE)
    highest, lowest, scores = {}, {}, {}
    for arm, build in arms.items():
        points: dict[float, Trained] = {}

        def attempt(
            rate: float, arm: str = arm, build: Make = build, points: dict[float, Trained] = points
        ) -> tuple[float, Trained]:
            nats, found = train(run, build, text, rate, f"{arm}, rate {rate:g}")
            points[rate] = found
            return nats, found

        best = run.sweep(arm, rates, attempt, score="validation nats")
        lowest[arm] = best.result.loss
        near = [rate for rate, found in points.items() if found.loss <= 1.1 * best.result.loss]
        highest[arm] = max(near, default=math.nan)
        for rate, found in points.items():
            if math.isfinite(found.loss):
                run.metric("held-out loss over rate", found.loss, step=rate, arm=arm)
            score, bound = largest_score(run, found.network, text)
            if math.isfinite(score):
                run.metric("largest score over rate", score, step=rate, arm=arm)
                scores[arm] = max(scores.get(arm, 0.0), score / bound)
    run.headline("held-out loss over rate")
    for arm, loss in lowest.items():
        run.metric("held-out loss at the best rate", loss, arm=arm)
    normed = not (run.null or run.broken)
    values = {
        "highest rate near the best loss, norm / none": highest["norm"] / highest["no norm"],
        "largest score, norm / its bound": scores["norm"] if normed else 0.0,
        "nats saved over letter frequencies, no norm": letters - lowest["no norm"],
    }
    run.claim(WIDER, values)


WIDE = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


def count_zeros(run: Run, make: partial[Persimmon], text: data.Parts, letters: float) -> None:
    """The share of hidden numbers that are zero, and the loss, by activation."""
    squared = leaky_squared if run.without(LEAKY.name) else squared_relu
    arms = run.arms(
        {
            "squared ReLU": partial(make, activation=squared),
            "ReLU": partial(make, activation=F.relu),
            "GELU": partial(make, activation=F.gelu),
        },
        control="GELU",
    )
    rates = run.pick(smoke=(1e-2,), quick=(3e-3, 1e-2, 3e-2), full=(1e-3, 3e-3, 1e-2, 3e-2))
    best: dict[str, Best[Trained]] = {}
    zeros: dict[str, list[float]] = {}
    for arm, build in arms.items():

        def attempt(rate: float, arm: str = arm, build: Make = build) -> tuple[float, Trained]:
            return train(run, build, text, rate, f"{arm}, rate {rate:g}")

        best[arm] = run.sweep(arm, rates, attempt, score="validation nats")
        zeros[arm] = zeros_by_layer(run, best[arm].result.network, text)
        for layer, share in enumerate(zeros[arm], 1):
            run.metric("share of zeros over layers", share, step=layer, arm=arm)
        run.metric("held-out loss, by activation", best[arm].result.loss, arm=arm)
    share = {arm: sum(found) / len(found) for arm, found in zeros.items()}
    loss = {arm: found.result.loss for arm, found in best.items()}
    rows = [(arm, round(share[arm], 3), round(loss[arm], 4)) for arm in arms]
    run.table("activations", ("activation", "share of zeros", "nats a character"), rows)
    values = {
        "share of zeros": share["squared ReLU"],
        "loss, squared ReLU / GELU": loss["squared ReLU"] / loss["GELU"],
        "nats saved over letter frequencies, GELU": letters - loss["GELU"],
        "share of zeros, ReLU": share["ReLU"],
    }
    tuned = list(best.values())
    if run.wants(SPARSE):
        run.claim(SPARSE, values, tuned=tuned)
    if run.wants(NINETY):
        run.claim(NINETY, {"share of zeros": share["squared ReLU"]}, tuned=tuned)


def leaky_squared(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01).square()


def train(run: Run, build: Make, text: data.Parts, rate: float, arm: str) -> tuple[float, Trained]:
    """AdamW without clipping, the rate climbing for a tenth of the steps and falling after."""
    steps = run.pick(smoke=2, quick=90, full=2000)
    torch.manual_seed(run.seed)
    network = build().to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    batches = run.generator("batches")
    run.phase("train")
    for step in run.steps(steps, arm):
        loss = network.loss(data.windows(text.train, TOKENS + 1, 8, batches).to(run.device))
        run.descend(loss, optimizer, step=step, arm=arm)
        schedule.step()
    run.phase("evaluate")
    with torch.no_grad():
        count = run.pick(smoke=8, quick=128, full=1024)
        choose, judge = (
            network.loss(data.windows(part, TOKENS + 1, count, run.generator(name)).to(run.device)).item()
            for name, part in (("to choose by", text.choose), ("to judge by", text.judge))
        )
    return choose, Trained(network, judge)


@torch.no_grad()
def largest_score(run: Run, network: Persimmon, text: data.Parts) -> tuple[float, float]:
    """The largest product of a query and a key over √dim in any layer, and the most that norms allow.

    A normalised vector is at most √dim long, then stretched by its gain and moved by its bias.
    """
    x = network.embed(data.windows(text.judge, TOKENS, 8, run.generator("scores")).to(run.device))
    found, bound = 0.0, 0.0
    for block in network.blocks:
        attention = block.attention
        q, k, _ = attention.project(block.norms[0](x))
        scores = (q @ k.mT).abs().max().item() / q.shape[-1] ** 0.5
        if not math.isfinite(scores):
            return math.nan, 1.0
        if hasattr(attention.query_norm, "weight"):
            longest = [
                norm.weight.abs().max().item() * q.shape[-1] ** 0.5 + norm.bias.norm().item()
                for norm in (attention.query_norm, attention.key_norm)
            ]
            bound = max(bound, longest[0] * longest[1] / q.shape[-1] ** 0.5)
        found = max(found, scores)
        x = block(x)
    return found, bound or math.inf


@torch.no_grad()
def zeros_by_layer(run: Run, network: Persimmon, text: data.Parts) -> list[float]:
    x = network.embed(data.windows(text.judge, TOKENS, 16, run.generator("zeros")).to(run.device))
    shares = []
    for block in network.blocks:
        shares.append((block.hidden(x + block.attention(block.norms[0](x))) == 0).double().mean().item())
        x = block(x)
    return shares
