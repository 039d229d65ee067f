"""Checks parameter counts, and compares parallel with serial layers and one key-value head with several."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import (
    UNTRAINED,
    Arm,
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

from .model import PALM_8B, PALM_62B, PALM_540B, PaLM, ParallelBlock, attend

SIZE = Claim(
    name="the paper's sizes",
    sentence="At each of the paper's three sizes, the model's matrices have the number of parameters that "
    "the paper's table states.",
    paper=Figure(
        "The table states 8.63, 62.50 and 540.35 billion parameters",
        where="section 2.1, table 1",
        read="table",
    ),
    rule=(
        Bound("billions of parameters, 8B", "==", 8.63),
        Bound("billions of parameters, 62B", "==", 62.5),
        Bound("billions of parameters, 540B", "==", 540.35),
    ),
    kind="identity",
    deviations="We do not count the gains of the norms. With the gains, the largest model has 540.36 billion "
    "parameters.",
)

NO_FEED_FORWARD = Break("no feed-forward", "There is no feed-forward layer in parallel with attention.")
HALF = Break("half of the steps", "The parallel blocks are trained for half of the steps.", "near miss")
BLIND_HEAD = Break(
    "no attention", "The single head does not attend, but returns each token's own value vector."
)
ONE_QUERY = Break("one query head", "There is also only one query head.", "near miss")
NARROW = Break(
    "narrow heads",
    "There are two query heads and two key-value heads of half the size, which need a KV cache of the same "
    "size.",
    "rival",
)

STEPS = 150
MODEL = (
    "We train a character model with two layers of hidden size 48 for 150 steps of AdamW, on batches of 8 "
    "windows of 48 characters. The paper trains models of 8 to 540 billion parameters with Adafactor. The "
    "paper's abstract reports the largest model's few-shot scores. "
)

PARALLEL = Claim(
    name="loss and training time, parallel and serial layers",
    sentence="After 150 steps, the loss with parallel blocks is at most 3 % higher than with serial blocks, "
    "and a training step takes less time.",
    paper=Figure(
        "Training is about 15 % faster at large scale. Quality is a little worse at 8 billion parameters, "
        "but not at 62 billion",
        where="section 2",
        read="text",
    ),
    rule=(
        at_most("nats a character", "parallel", 1.03, over="serial", toward=1.05),
        Speedup("blocks, a training step", of="parallel", over="serial, fused", threshold=1.05, mode="until"),
    ),
    guards=(at_most("products of weights in a row", "parallel", 0.6, over="serial"),),
    control="serial blocks, which also have fused projections, each model at its best learning rate from "
    "the same grid",
    control_arm="serial",
    control_reaches=(at_least("nats a character", "no feed-forward", 1.04, over="serial"),),
    after_steps=STEPS,
    breaks=(NO_FEED_FORWARD, HALF, UNTRAINED),
    no_rival="The fused serial block is the cheapest block with the same parameters, and is already the "
    "control.",
    chosen_on=(0, 1),
    headline=True,
    deviations=MODEL + "In both models, every query head has its own key-value head. The paper fuses the "
    "matrix multiplications that read the input. We also fuse the multiplications that write the output. We "
    "measure times on a CPU, which a matrix multiplication of this size already keeps busy.",
    history=(
        (
            'Until November 2026 the verdict was "inconclusive" (6 of 10 seeds, same bounds). The two halves '
            "of the parallel blocks' last matrix were initialised with their joint fan-in, so the initial "
            "weights of attention's half were 1.9 times smaller than in the control. Now each half is "
            "initialised with the fan-in of that half. The number of sequential matrix multiplications is "
            "lower by construction, so this bound is now a guard."
        ),
    ),
)

LOST = "share of the loss increase without attention"

ONE_HEAD = Claim(
    name="loss and decoding time, one and all key-value heads",
    sentence="After 150 steps, sharing one key-value head among all query heads raises the loss by at most "
    "half as much as using heads that do not attend to other tokens. Decoding is at least 1.5 times as fast "
    "as with all key-value heads.",
    paper=Figure(
        "The effect on quality and training speed is neutral, and decoding is cheaper",
        where="section 2",
        read="text",
    ),
    rule=(
        at_most(LOST, "one head", 0.5, toward=1.0),
        Speedup(
            "one token",
            over="a cache of all heads",
            threshold=1.5,
            axes={"tokens before": 4096},
            mode="decode",
        ),
    ),
    guards=(at_most("numbers in the cache", "one head", 0.3, over="parallel"),),
    control="parallel blocks with one key-value head per query head",
    control_arm="parallel",
    control_reaches=(at_least("nats a character", "without attention", 1.03, over="parallel"),),
    after_steps=STEPS,
    breaks=(BLIND_HEAD, ONE_QUERY, NARROW, UNTRAINED),
    chosen_on=(0, 1, 2),
    deviations=MODEL + "There are 4 heads. We compare the increase in loss with the increase for heads that "
    "return each token's own value. Decoding is timed on a block of hidden size 512 after 4,096 tokens.",
    history=(
        (
            'Until November 2026 the verdict was "weak", with the same bounds. The number of heads '
            "determines the size of the KV cache, so this bound is now a guard. The near misses and the "
            "rival are new."
        ),
    ),
)

TOKENS = 48  # per window


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        count_parameters(run)
    if run.wants(PARALLEL, ONE_HEAD):
        compare(run)


def count_parameters(run: Run) -> None:
    sizes = {"8B": PALM_8B, "62B": PALM_62B, "540B": PALM_540B}
    billions = {}
    for name, size in sizes.items():
        with torch.device("meta"):  # shapes only, no storage
            total = sum(weight.numel() for weight in PaLM(**size).parameters() if weight.ndim > 1)
        billions[f"billions of parameters, {name}"] = round(total / 1e9, 2)
    run.claim(SIZE, billions)


class SerialBlock(nn.Module):
    """x + Attention(LayerNorm(x)), then x + SwiGLU(LayerNorm(x)), in four matrix multiplications."""

    def __init__(self, model: int, heads: int, dim: int, groups: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.widths = heads * dim, groups * dim, groups * dim
        self.norms = nn.ModuleList(nn.LayerNorm(model, bias=False) for _ in range(2))
        self.read = nn.ModuleList(nn.Linear(model, n, bias=False) for n in (sum(self.widths), 2 * hidden))
        self.write = nn.ModuleList(nn.Linear(n, model, bias=False) for n in (heads * dim, hidden))

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch groups room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        q, k, v = self.read[0](self.norms[0](x)).split(self.widths, -1)
        x = x + self.write[0](attend(q, k, v, self.dim, kv, first))
        gate, up = self.read[1](self.norms[1](x)).chunk(2, -1)
        return x + self.write[1](F.silu(gate) * up)


class WithoutFeedForward(SerialBlock):
    """A serial block with attention only. The feed-forward matrices are not used."""

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch groups room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        q, k, v = self.read[0](self.norms[0](x)).split(self.widths, -1)
        return x + self.write[0](attend(q, k, v, self.dim, kv, first))


class WithoutLooking(ParallelBlock):
    """Every head returns each token's own value vector."""

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch groups room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        q, _, v, gate, up = self.read(self.norm(x)).split(self.widths, -1)
        own = v.repeat(1, 1, q.shape[-1] // v.shape[-1])
        return x + self.write(torch.cat((own, F.silu(gate) * up), -1))


HEADS = 4
SIZES: dict[str, Any] = {"model": 48, "heads": HEADS, "groups": HEADS, "layers": 2, "dim": 12, "hidden": 128}


class Recipe(NamedTuple):
    """size: differences from `SIZES`; share: the fraction of the usual number of steps"""

    block: Callable[..., nn.Module]
    size: Mapping[str, int] = MappingProxyType({})
    share: float = 1.0


class Text(NamedTuple):
    """parts: sequences of ids for training, validation and test; vocab: the number of characters"""

    parts: data.Parts
    vocab: int

    def windows(
        self, run: Run, part: Literal["choose", "judge"], count: int
    ) -> Int[Tensor, "windows longer"]:
        draw = run.data(f"windows to {part}", part)
        return data.windows(getattr(self.parts, part), TOKENS + 1, count, draw)


def compare(run: Run) -> None:
    ids, alphabet = data.characters(data.text())
    parallel = Recipe(ParallelBlock)
    replaced = {
        NO_FEED_FORWARD: {"parallel": Arm(Recipe(WithoutFeedForward))},
        HALF: {"parallel": Arm(parallel._replace(share=0.5))},
        BLIND_HEAD: {"one head": Arm(Recipe(WithoutLooking, {"groups": 1}))},
        ONE_QUERY: {"one head": Arm(Recipe(ParallelBlock, {"heads": 1, "groups": 1}))},
        NARROW: {"one head": Arm(Recipe(ParallelBlock, {"heads": 2, "groups": 2, "dim": 6}))},
    }
    run.compare(
        PARALLEL,
        ONE_HEAD,
        arms={
            "parallel": Arm(parallel),
            "serial": Arm(Recipe(SerialBlock)),
            "one head": Arm(Recipe(ParallelBlock, {"groups": 1})),
        },
        yardsticks={
            "no feed-forward": Arm(Recipe(WithoutFeedForward)),
            "without attention": Arm(Recipe(WithoutLooking)),
        },
        attempt=train,
        read=judge,
        grid=run.pick(
            smoke=(1.2e-2,), quick=(1.2e-2, 2.4e-2, 4.8e-2), full=(3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2)
        ),
        score="validation nats",
        derive=part_lost,
        breaks={one.name: arms for one, arms in replaced.items()},
        world=Text(data.stretches(ids, run.data_seed("world")), len(alphabet)),
    )
    run.headline("held-out nats over steps, at the best rate")


def part_lost(table: Table) -> dict[str, dict[str, float]]:
    if not {"one head", "without attention"} <= table.rows.keys():  # this is a run of the other claim
        return {}
    one, every, none = (
        float(table[arm, "nats a character"]) for arm in ("one head", "parallel", "without attention")
    )
    return {"one head": {LOST: (one - every) / (none - every) if none != every else math.nan}}


class Trained(NamedTuple):
    """course: held-out loss in nats, by step"""

    network: PaLM
    course: dict[int, float]


def products(network: PaLM) -> int:
    """Number of linear layers in a block that must be computed one after another."""
    return sum(isinstance(layer, nn.Linear) for layer in network.blocks[0].modules())


def train(at: Trial, recipe: Recipe, rate: float) -> tuple[float, Trained]:
    """Train a network. Return the validation loss in nats and the network."""
    run, text = at.run, at.world
    steps = round(recipe.share * at.length(run.pick(smoke=4, quick=STEPS, full=3000)))
    network = PaLM(text.vocab, **{**SIZES, **recipe.size}, block=recipe.block).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    batches, label, course = at.generator("batches"), f"{at.name}, rate {rate:g}", {}
    run.phase("train")
    for step in at.steps(steps, label, state=(network, optimizer, schedule, course)):
        loss = network.loss(data.windows(text.parts.train, TOKENS + 1, 8, batches).to(run.device))
        at.descend(loss, optimizer, step=step, arm=label, clip=1.0)
        schedule.step()
        if (step + 1) % max(steps // 6, 1) == 0:
            course[step + 1] = nats_of(network, text.windows(run, "judge", 32)).mean().item()
    run.phase("evaluate")
    return held_out(at, network, "choose").mean().item(), Trained(network, course)


def judge(at: Trial, found: Sweep[Trained]) -> dict[str, float | Tensor]:
    network, course = found.chosen
    nats = held_out(at, network, "judge")
    at.metric("held-out nats a character", nats.mean().item())
    for step, then in course.items():
        at.metric("held-out nats over steps, at the best rate", then, step=step)
    return {
        "nats a character": nats,
        "products of weights in a row": products(network),
        "numbers in the cache": network.empty_cache(1, 1).kv.numel(),
    }


def held_out(at: Trial, network: PaLM, part: Literal["choose", "judge"]) -> Float[Tensor, " windows"]:
    return nats_of(network, at.world.windows(at.run, part, at.run.pick(smoke=8, quick=192, full=1024)))


@torch.no_grad()
def nats_of(network: PaLM, ids: Int[Tensor, "windows longer"]) -> Float[Tensor, " windows"]:
    """Loss of each window, in nats per character."""
    ids = ids.to(network.embed.weight.device)
    nats = F.cross_entropy(network(ids[:, :-1]).transpose(1, 2), ids[:, 1:], reduction="none")
    return nats.mean(1).double().cpu()
