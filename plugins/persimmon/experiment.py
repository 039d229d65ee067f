"""Checks the parameter count, trains with and without query and key norm, and counts zero activations."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import (
    UNTRAINED,
    Arm,
    AtLeast,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Speedup,
    Sweep,
    Table,
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from .model import Persimmon, squared_relu

SIZE = Claim(
    name="the released size",
    sentence="With default sizes, this model has the same number of parameters as the released model.",
    paper=Figure(
        "The post states 9.3 billion with unused embeddings. The released files have 9,397,175,296",
        read="secondary",
    ),
    rule=(Bound("parameters", "==", 9_397_175_296),),
    kind="identity",
)

HIGHEST = "highest learning rate that trains well"

NO_NORM = Break("no norm", "Queries and keys are not normalised.")
ONE_NORM = Break("norm on queries only", "Only the queries are normalised, not the keys.", "near miss")
CLIPPED = Break("gradient clipping", "There is no norm, and gradients are clipped to a norm of 1.", "rival")

STEPS = 90
MODEL = (
    "We train a character model with two layers of hidden size 48 for 90 steps of AdamW, on batches of 8 "
    "windows of 48 characters. The released model has 36 layers of hidden size 4,096 and was trained on 737 "
    "billion tokens. "
)

WIDER = Claim(
    name="highest learning rate with and without query and key norm",
    sentence="The highest learning rate at which a model trains well in 90 steps is at least twice as high "
    "with normalised queries and keys as without this norm.",
    paper=Figure(
        "Queries and keys are normalised for stability. The post shows no ablation",
        where="the post",
        read="secondary",
    ),
    rule=(at_least(HIGHEST, "norm", 2.0, over="no norm", toward=1.1),),
    guards=(at_most("largest score over its bound", "norm", 1.001),),
    control="the same model without the norm and without gradient clipping, over the same learning rates",
    control_arm="no norm",
    control_reaches=(at_least("nats a character", "letter frequencies", 0.3, minus="no norm"),),
    after_steps=STEPS,
    breaks=(NO_NORM, ONE_NORM, CLIPPED, UNTRAINED),
    chosen_on=(0, 1),
    deviations=MODEL
    + "A learning rate trains well if its loss is within 10 % of the lowest loss without the norm. The "
    "highest such learning rate is interpolated between grid points on a logarithmic scale.",
    history=(
        (
            'Until November 2026 the verdict was "inconclusive", with the same bound. The highest learning '
            "rate was a point on a grid whose neighbouring values differ by a factor of 3. A learning rate "
            "counted if its loss was within 10 % of the same model's lowest loss. A model that does not "
            "train meets this condition at every learning rate."
        ),
    ),
)

LEAKY = Break(
    "leaky squared ReLU",
    "Negative inputs are multiplied by a hundredth instead of zero, so no activation is zero.",
    "near miss",
)
PLAIN = Break("ReLU", "The ReLU is not squared.", "rival")
POST = Figure(
    "Often more than 90 % of the activations are zero, unlike with SwiGLU and GELU",
    where="the post, footnote 2",
    read="secondary",
)

SPARSE = Claim(
    name="sparsity gained in training, and loss against GELU",
    sentence="After 90 steps with squared ReLU, the share of zero hidden activations is at least 5 points "
    "higher than in the untrained model. The loss is at most 1 % higher than with GELU.",
    paper=POST,
    rule=(
        at_least("share of zeros", "squared ReLU", 0.05, minus="untrained", toward=0.0),
        at_most("nats a character", "squared ReLU", 1.01, over="GELU", toward=1.03),
    ),
    control="the same model with GELU. Each model uses its best learning rate from the same grid. Before "
    "training, half of the squared ReLU's activations are zero",
    control_arm="GELU",
    control_reaches=(at_least("nats a character", "letter frequencies", 0.3, minus="GELU"),),
    after_steps=STEPS,
    breaks=(LEAKY, PLAIN, UNTRAINED),
    chosen_on=(0, 1),
    deviations=MODEL + "The footnote mentions neither the share of zeros before training nor plain ReLU.",
    history=(
        (
            "Until November 2026 the rule required half of the activations to be zero, and the verdict was "
            '"reproduced". An untrained model has 48 to 51 % zeros, so the bound is now on the increase by '
            "training."
        ),
    ),
)

NINETY = Claim(
    name="squared ReLU sparsity",
    sentence="After 90 steps with squared ReLU, at least 90 % of the hidden activations are zero.",
    paper=POST,
    rule=(at_least("share of zeros", "squared ReLU", 0.9),),
    control="GELU, which has no zeros",
    control_arm="GELU",
    after_steps=STEPS,
    breaks=(LEAKY, PLAIN, UNTRAINED),
    chosen_on=(0, 1),
    deviations=MODEL,
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "weak", with 0 of 5 seeds. Any share above one half counted '
            "as an effect in the paper's direction, but half of the activations of an untrained model are "
            "already zero. Now a share below 90 % is a miss."
        ),
    ),
)

SKIPPED = Claim(
    name="sparse against dense product at 95 % zeros",
    sentence="For one token with 4,096 hidden activations, of which 95 % are zero, multiplying only the rows "
    "of nonzero activations is at least 1.5 times as fast as multiplying all rows.",
    paper=Figure(
        "The zeros provide opportunities for faster inference", where="the post, footnote 2", read="secondary"
    ),
    rule=(Speedup("the second product", over="strong", threshold=1.5, axes={"share of zeros": 0.95}),),
    control="the matrix multiplication with all rows",
    deviations="We time a single token of hidden size 1,024 on a CPU. None of our models has 95 % zeros. The "
    "benchmark also times 60 % zeros, which is the share in our models, and 75 %. In our measurements at "
    "both of these shares, the multiplication with all rows was faster. With half as many activations and "
    "outputs, it was also faster at 95 %. The same vectors are timed repeatedly, so the rows of their "
    "nonzero activations may stay in the processor's cache.",
    history=(
        'Until November 2026 the sentence did not name the share of zeros. The verdict was "reproduced".',
        (
            'Then the verdict was "reproduced" (6.6 times as fast, same bound). The only product with '
            "all rows used weights stored as in a linear layer. The product with the rows themselves is new."
        ),
    ),
)

TOKENS = 48  # per window
WIDE = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
NEAR = 1.1


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):  # shapes only, no storage
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in Persimmon().parameters())})
    if run.wants(WIDER, SPARSE, NINETY):
        run.phase("setup")
        ids, alphabet = data.characters(data.text())
        text = Text(data.stretches(ids, run.data_seed("world")), len(alphabet))
        if run.wants(WIDER):
            compare_rates(run, text)
        if run.wants(SPARSE, NINETY):
            count_zeros(run, text)


class Text(NamedTuple):
    """parts: sequences of ids for training, validation and test; vocab: the number of characters"""

    parts: data.Parts
    vocab: int

    def windows(self, run: Run, part: Literal["choose", "judge"]) -> Int[Tensor, "windows longer"]:
        count = run.pick(smoke=8, quick=128, full=1024)
        draw = run.data(f"windows to {part}", part)
        found = data.windows(getattr(self.parts, part), TOKENS + 1, count, draw)
        return found.to(run.device)

    def letters(self) -> float:
        """Loss of a unigram model on the test part, in nats per character."""
        counts = torch.bincount(torch.cat(self.parts.train), minlength=self.vocab).double() + 1
        return -(counts / counts.sum()).log()[torch.cat(self.parts.judge)].mean().item()

    def network(self, **settings: Any) -> Persimmon:
        return Persimmon(self.vocab, model=48, heads=4, layers=2, hidden=192, std=0.1, **settings)


class Recipe(NamedTuple):
    """settings of the model; one_norm: keys are not normalised; clip: maximal gradient norm"""

    settings: Mapping[str, Any]
    one_norm: bool = False
    clip: float | None = None


def compare_rates(run: Run, text: Text) -> None:
    """Compare the losses at each learning rate, with and without the norm."""
    norm, none = Recipe({}), Recipe({"normalised": False})
    changed = {NO_NORM: none, ONE_NORM: norm._replace(one_norm=True), CLIPPED: none._replace(clip=1.0)}
    table = run.compare(
        WIDER,
        arms={"norm": Arm(norm), "no norm": Arm(none)},
        attempt=train,
        read=judged_rates,
        grid=run.pick(smoke=(1e-2, 1e-1), quick=WIDE, full=WIDE),
        score="validation nats",
        widen=False,
        references={"letter frequencies": {"nats a character": text.letters()}},
        derive=partial(highest_rates, run),
        breaks={one.name: {"norm": Arm(recipe)} for one, recipe in changed.items()},
        world=text,
        judged_on="training",
    )
    run.headline("held-out loss over rate")
    for arm in table.sweeps:
        run.metric("held-out loss at the best rate", float(table[arm, "nats a character"]), arm=arm)


def highest_rates(run: Run, table: Table) -> dict[str, dict[str, float | AtLeast]]:
    """Each arm's highest learning rate with a loss within 10 % of the lowest loss without the norm."""
    losses = {
        arm: {
            rate: held_out(run, table.world, net, "judge").mean().item() for rate, net in one.points.items()
        }
        for arm, one in table.sweeps.items()
    }
    for arm, over_rates in losses.items():
        for rate, loss in over_rates.items():
            if math.isfinite(loss):
                run.metric("held-out loss over rate", loss, step=rate, arm=arm)
    limit = NEAR * min(loss for loss in losses["no norm"].values() if math.isfinite(loss))
    return {arm: {HIGHEST: highest_rate(over_rates, limit)} for arm, over_rates in losses.items()}


def highest_rate(losses: Mapping[float, float], limit: float) -> float | AtLeast:
    """The learning rate above which the loss stays above `limit`, or NaN if no loss is below it.

    Interpolates linearly over the logarithm of the learning rate.
    """
    rates = sorted(losses)
    near = [rate for rate in rates if losses[rate] <= limit]
    if not near:
        return math.nan
    if near[-1] == rates[-1]:
        return AtLeast(near[-1])
    beyond = rates[rates.index(near[-1]) + 1]
    rise = losses[beyond] - losses[near[-1]]
    part = (limit - losses[near[-1]]) / rise if math.isfinite(rise) else 0.0
    return near[-1] * (beyond / near[-1]) ** part


def judged_rates(at: Trial, found: Sweep[Persimmon]) -> dict[str, float | Tensor]:
    """Each window's loss at the best learning rate, and the largest score / bound at any learning rate."""
    scores = []
    for rate, network in found.points.items():
        score, bound = largest_score(at, network)
        if math.isfinite(score):
            at.metric("largest score over rate", score, step=rate)
            scores.append(score / bound)
    nats = held_out(at.run, at.world, found.chosen, "judge")
    return {"nats a character": nats, "largest score over its bound": max(scores, default=math.nan)}


def count_zeros(run: Run, text: Text) -> None:
    """Train with each activation function, and compare the share of zero hidden activations and the loss."""
    squared, plain, leaky = (
        Arm(Recipe({"activation": activation})) for activation in (squared_relu, F.relu, leaky_squared)
    )
    torch.manual_seed(run.seed)
    untrained = text.network().to(run.device, run.dtype)
    start = {"share of zeros": torch.stack(zeros_by_layer(run, text, untrained)).mean(0)}
    table = run.compare(
        SPARSE,
        NINETY,
        arms={"squared ReLU": squared, "ReLU": plain, "GELU": Arm(Recipe({"activation": F.gelu}))},
        attempt=train,
        read=judged_zeros,
        grid=run.pick(smoke=(1e-2,), quick=(3e-3, 1e-2, 3e-2), full=(1e-3, 3e-3, 1e-2, 3e-2)),
        score="validation nats",
        references={"letter frequencies": {"nats a character": text.letters()}, "untrained": start},
        breaks={LEAKY.name: {"squared ReLU": leaky}, PLAIN.name: {"squared ReLU": plain}},
        world=text,
    )
    metrics = ("share of zeros", "nats a character")
    rows = [(arm, *(round(float(table[arm, metric]), 4) for metric in metrics)) for arm in table.sweeps]
    caption = "Share of zeros among the hidden activations, and held-out loss, by activation function."
    run.table("activations", ("activation", *metrics), rows, caption=caption)


def judged_zeros(at: Trial, found: Sweep[Persimmon]) -> dict[str, Tensor]:
    """The share of zeros and the loss, for each window."""
    shares = zeros_by_layer(at.run, at.world, found.chosen)
    for layer, share in enumerate(shares, 1):
        at.metric("share of zeros over layers", share.mean().item(), step=layer)
    nats = held_out(at.run, at.world, found.chosen, "judge")
    at.metric("held-out loss, by activation", nats.mean().item())
    return {"share of zeros": torch.stack(shares).mean(0), "nats a character": nats}


def leaky_squared(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01).square()


def train(at: Trial, recipe: Recipe, rate: float) -> tuple[float, Persimmon]:
    """Train with AdamW and a one-cycle learning rate. Return the validation loss and the network."""
    run, text = at.run, at.world
    steps = at.length(run.pick(smoke=2, quick=STEPS, full=2000))
    network = text.network(**recipe.settings)
    if recipe.one_norm:
        for block in network.blocks:
            block.attention.key_norm = nn.Identity()
    network = network.to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    batches, label = at.generator("batches"), f"{at.name}, rate {rate:g}"
    run.phase("train")
    for step in at.steps(steps, label, state=(network, optimizer, schedule)):
        loss = network.loss(data.windows(text.parts.train, TOKENS + 1, 8, batches).to(run.device))
        at.descend(loss, optimizer, step=step, arm=label, clip=recipe.clip)
        schedule.step()
    run.phase("evaluate")
    return held_out(run, text, network, "choose").mean().item(), network


@torch.no_grad()
def held_out(
    run: Run, text: Text, network: Persimmon, part: Literal["choose", "judge"]
) -> Float[Tensor, " windows"]:
    """Loss of each window, in nats per character."""
    windows = text.windows(run, part)
    logits = network(windows[:, :-1]).transpose(1, 2)
    return F.cross_entropy(logits, windows[:, 1:], reduction="none").mean(1).double()


@torch.no_grad()
def largest_score(at: Trial, network: Persimmon) -> tuple[float, float]:
    """The largest score q·k / √dim in any layer, and the upper bound that the norms give.

    A normalised vector has a length of at most √dim before gain and bias are applied.
    """
    x = network.embed(at.world.windows(at.run, "judge")[:8, :-1])
    found, bound = 0.0, 0.0
    for block in network.blocks:
        attention = block.attention
        q, k, _ = attention.project(block.norms[0](x))
        scores = (q @ k.mT).abs().max().item() / q.shape[-1] ** 0.5
        if not math.isfinite(scores):
            return math.nan, 1.0
        norms = attention.query_norm, attention.key_norm
        if all(hasattr(norm, "weight") for norm in norms):
            longest = [
                norm.weight.abs().max().item() * q.shape[-1] ** 0.5 + norm.bias.norm().item()
                for norm in norms
            ]
            bound = max(bound, longest[0] * longest[1] / q.shape[-1] ** 0.5)
        found = max(found, scores)
        x = block(x)
    return found, bound or math.inf


@torch.no_grad()
def zeros_by_layer(run: Run, text: Text, network: Persimmon) -> list[Float[Tensor, " windows"]]:
    """The share of zero hidden activations in each layer, by window."""
    x = network.embed(text.windows(run, "judge")[:, :-1])
    shares = []
    for block in network.blocks:
        hidden = block.hidden(x + block.attention(block.norms[0](x)))
        shares.append((hidden == 0).double().mean((1, 2)).cpu())
        x = block(x)
    return shares
