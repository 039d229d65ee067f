"""Checks parameter counts, and compares how many facts dense layers and a mixture of experts memorise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Best,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Speedup,
    Sweep,
    Trial,
    at_least,
    at_most,
    hookimpl,
)
from readtrack.plugin import Table as Numbers

from ..rmsnorm import RMSNorm
from ..sliding_window import SwiGLU
from .model import Mixtral, SparseExperts, active_parameters, balance_loss, loads

SIZE = Claim(
    name="parameter counts of the released models",
    seeded_as="the released sizes",
    sentence="With its default sizes, this model has the same numbers of total and active parameters as "
    "the released model.",
    paper=Figure(
        "The model has 47 billion parameters, 13 billion of them active. The released files have "
        "46,702,792,704",
        where="abstract",
        read="abstract",
    ),
    rule=(
        Bound("parameters", "==", 46_702_792_704),
        Bound("active parameters", "==", 12_879_925_248),
    ),
    kind="identity",
)

ONE_EXPERT = Break("one expert for all", "The router sends every token to the same two experts.")
AT_RANDOM = Break(
    "experts at random", "In each pass, every token goes to two randomly chosen experts.", "near miss"
)
FROZEN = Break(
    "a router that does not learn",
    "The router keeps its random weights, similar to hashing tokens to experts (Roller et al. 2021).",
    "rival",
)

FACTS = Claim(
    name="mixture and dense layers of equal cost and equal size",
    seeded_as="holds what a large one holds, for the cost of a small one",
    sentence="A mixture-of-experts layer that costs as much per token as a small dense layer closes most of "
    "the gap in memorised facts between that layer and a dense layer with as many parameters as all experts.",
    paper=Figure(
        "With 13 billion active parameters, Mixtral matches or outperforms LLaMA 2 70B",
        where="abstract",
        read="abstract",
    ),
    rule=(
        at_least(
            "share of the gap",
            "experts",
            0.6,
            toward=0.0,
            called="share of the gap closed, small dense to large dense",
        ),
    ),
    guards=(
        at_most(
            "operations",
            "experts",
            0.35,
            over="large dense",
            called="operations a token, experts / large dense",
        ),
    ),
    control="a dense layer with the same cost per token",
    control_arm="small dense",
    control_reaches=(
        at_least(
            "facts right",
            "large dense",
            0.15,
            minus="small dense",
            called="facts the large dense layer holds more than the small",
        ),
        at_least("facts right", "small dense", 0.1, called="facts right, small dense"),
    ),
    breaks=(ONE_EXPERT, AT_RANDOM, FROZEN, UNTRAINED),
    chosen_on=(0, 1),
    deviations="A random table that maps pairs of names to values replaces text. The network has one layer "
    "of hidden size 32. Each network uses its best learning rate from the same grid, chosen on facts that "
    "are not tested. No loss balances the experts, because the report mentions none. A table in the output "
    "shows the effect of a balancing loss.",
    headline=True,
    history=(
        (
            "Until November 2026 the cost per token was one of the bounds. It is a count of operations, so "
            "it is a guard now: each run checks it, and it does not count as evidence."
        ),
    ),
)

FASTER = Claim(
    name="time against a dense layer of equal size",
    seeded_as="faster than a dense layer of its size",
    sentence="At hidden size 256, a mixture-of-experts layer processes one token faster than a dense layer "
    "with the same number of parameters.",
    paper=Figure(
        "Mixtral has five times fewer active parameters than LLaMA 2 70B", where="section 3", read="text"
    ),
    rule=(Speedup("a layer", over="dense, as many parameters", threshold=1.5, axes={"tokens": 1}),),
    control="a dense SwiGLU layer with the parameters of all experts",
    deviations="The dense layer holds the weights of all experts, concatenated before the timing starts. A "
    "single layer is timed on a CPU, always with the same token. The weights of two experts may stay in the "
    "processor's cache when those of the dense layer do not. The speed-up can therefore exceed four, the "
    "ratio of the bytes read. At hidden size 128, it was 1.4, below the bound.",
)

NAMES, VALUES = 96, 64
WIDTH, EXPERTS, ACTIVE = 32, 8, 2
HIDDEN = 32  # hidden size of an expert
BALANCE = 0.02  # weight of the load-balancing loss in the released config.json, from memory


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):  # shapes only, no storage
            network = Mixtral()
        total = sum(weight.numel() for weight in network.parameters())
        run.claim(SIZE, {"parameters": total, "active parameters": active_parameters(network)})
    if run.wants(FACTS):
        learn_facts(run)


class Recall(nn.Module):
    """Maps two names to the value of their pair: embeddings, a normalised feed-forward layer, a readout."""

    def __init__(self, feed_forward: nn.Module) -> None:
        super().__init__()
        self.names = nn.ModuleList(nn.Embedding(NAMES, WIDTH) for _ in range(2))
        self.norms = nn.ModuleList(RMSNorm(WIDTH) for _ in range(2))
        self.feed_forward = feed_forward
        self.readout = nn.Linear(WIDTH, VALUES, bias=False)

    def forward(self, pairs: Int[Tensor, "facts 2"]) -> Float[Tensor, "facts values"]:
        x = self.embed(pairs)
        return self.readout(self.norms[1](x + self.feed_forward(self.norms[0](x))))

    def embed(self, pairs: Int[Tensor, "facts 2"]) -> Float[Tensor, "facts width"]:
        return self.names[0](pairs[:, 0]) + self.names[1](pairs[:, 1])

    def routed(
        self, pairs: Int[Tensor, "facts 2"]
    ) -> tuple[Float[Tensor, "facts active"], Int[Tensor, "facts active"], Float[Tensor, "facts experts"]]:
        """Outputs of the layer's router: weights, chosen experts, logits."""
        return self.feed_forward.router(self.norms[0](self.embed(pairs)))


class SameForAll(SparseExperts):
    """Experts whose router ignores the token."""

    def forward(self, x: Float[Tensor, "tokens model"]) -> Float[Tensor, "tokens model"]:
        weights, chosen, _ = self.router(torch.ones_like(x))
        return self.dispatch(x, weights, chosen)


class AtRandom(SparseExperts):
    """Experts whose router chooses at random."""

    def forward(self, x: Float[Tensor, "tokens model"]) -> Float[Tensor, "tokens model"]:
        chosen = torch.rand(len(x), len(self.w1), device=x.device).topk(self.router.active, -1).indices
        return self.dispatch(x, torch.full_like(chosen, 1 / self.router.active, dtype=x.dtype), chosen)


class Frozen(SparseExperts):
    """Experts whose router is frozen at its initial weights."""

    def __init__(self, model: int, hidden: int, *, experts: int, active: int) -> None:
        super().__init__(model, hidden, experts=experts, active=active)
        self.router.requires_grad_(False)


Make = Callable[[], nn.Module]
Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Table:
    """Random facts, all used for training. One half selects the learning rate; the other is the test set."""

    pairs: Int[Tensor, "facts 2"]
    value: Int[Tensor, " facts"]
    choose: Int[Tensor, " half"]
    judge: Int[Tensor, " half"]


def draw_table(run: Run) -> Table:
    pairs = torch.cartesian_prod(torch.arange(NAMES), torch.arange(NAMES))
    value = torch.randint(VALUES, (len(pairs),), generator=run.data("table", "world"))
    choose, judge = torch.randperm(len(pairs), generator=run.data("parts", "world")).chunk(2)
    return Table(pairs, value, choose, judge[run.rows(len(judge), "judge")])


def learn_facts(run: Run) -> None:
    """Memorise a random table with a small dense layer, a large dense layer and a mixture of experts."""
    facts = draw_table(run)
    experts = partial(SparseExperts, WIDTH, HIDDEN, experts=EXPERTS, active=ACTIVE)
    table = run.compare(
        FACTS,
        arms={"experts": Arm(experts), "small dense": Arm(partial(SwiGLU, WIDTH, ACTIVE * HIDDEN))},
        attempt=learn,
        read=recalled,
        grid=run.pick(smoke=(2e-2,), quick=(7e-3, 2e-2, 6e-2, 1.8e-1), full=(2e-3, 7e-3, 2e-2, 6e-2, 1.8e-1)),
        score="validation facts right",
        keep="highest",
        # The large dense layer measures how much there is to gain.
        yardsticks={"large dense": Arm(partial(SwiGLU, WIDTH, EXPERTS * HIDDEN))},
        derive=share_of_gap,
        breaks={
            name: {"experts": Arm(partial(layer, WIDTH, HIDDEN, experts=EXPERTS, active=ACTIVE))}
            for name, layer in (
                (ONE_EXPERT.name, SameForAll),
                (AT_RANDOM.name, AtRandom),
                (FROZEN.name, Frozen),
            )
        },
        world=facts,
    )
    run.headline("facts right at the best rate")
    if run.wants(SIZE):
        show_loads(run, experts, table.best["experts"], table.sweeps["experts"].chosen[0], facts)


def learn(at: Trial, make: Make, rate: float) -> tuple[float, tuple[Recall, Curve]]:
    network, curve = train(at, f"{at.name}, rate {rate:g}", make, rate, at.world)
    return curve[-1][1], (network, curve)


def recalled(at: Trial, found: Sweep[tuple[Recall, Curve]]) -> dict[str, float]:
    network, curve = found.chosen
    right = accuracy(network, at.world, at.world.judge, at.run)
    at.metric("facts right", right)
    for step, share in curve:
        at.metric("facts right at the best rate", share, step=step)
    return {"facts right": right, "operations": operations(network)}


def share_of_gap(table: Numbers) -> dict[str, dict[str, float]]:
    right = table.of("facts right")
    gap = right["large dense"] - right["small dense"]
    return {
        "experts": {"share of the gap": (right["experts"] - right["small dense"]) / gap if gap else math.nan}
    }


def train(
    at: Run | Trial, arm: str, make: Make, rate: float, table: Table, *, balance: float = 0.0
) -> tuple[Recall, Curve]:
    """Train a network, and return it with its accuracy on the validation facts during training.

    balance  weight of the load-balancing loss
    """
    run = at.run if isinstance(at, Trial) else at
    steps = run.pick(smoke=3, quick=350, full=2000)
    network = Recall(make()).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    drawn, curve = at.generator("facts"), []
    run.phase("train")
    for step in at.steps(steps, arm, state=(network, optimizer, schedule, curve)):
        rows = torch.randint(len(table.pairs), (768,), generator=drawn)
        pairs = table.pairs[rows].to(run.device)
        loss = F.cross_entropy(network(pairs), table.value[rows].to(run.device))
        if balance:
            _, chosen, logits = network.routed(pairs)
            loss = loss + balance * balance_loss(chosen, logits)
        at.descend(loss, optimizer, step=step, arm=arm)
        schedule.step()
        if (step + 1) % max(steps // 10, 1) == 0:
            curve.append((step + 1, accuracy(network, table, table.choose, run)))
    return network, curve or [(0, accuracy(network, table, table.choose, run))]


@torch.no_grad()
def accuracy(network: Recall, table: Table, rows: Int[Tensor, " some"], run: Run) -> float:
    found = network(table.pairs[rows].to(run.device)).argmax(-1).cpu()
    return (found == table.value[rows]).double().mean().item()


def operations(network: Recall) -> int:
    """Multiply-adds per token in the feed-forward layer, including the router."""
    layer = network.feed_forward
    if isinstance(layer, SparseExperts):
        experts, hidden, model = layer.w1.shape
        return 3 * layer.router.active * hidden * model + experts * model
    return sum(weight.numel() for weight in layer.parameters())


def show_loads(run: Run, make: Make, best: Best[float], without: Recall, table: Table) -> None:
    """Plot each expert's load in the trained network and in a network trained with a load-balancing loss."""
    torch.manual_seed(run.seed)
    balanced, _ = train(run, "experts, balanced", make, best.value, table, balance=BALANCE)
    run.phase("evaluate")
    networks = {"without": without, "with": balanced}
    columns = []
    for name, network in networks.items():
        with torch.no_grad():
            load = loads(*network.routed(table.pairs.to(run.device))[1:])
        right = accuracy(network, table, table.judge, run)
        run.metric("facts right by a loss that balances the experts", right, arm=name)
        run.metric("largest load of an expert over the even one", load.max().item() * len(load), arm=name)
        columns.append([round(share, 3) for share in load.tolist()])
    run.table(
        "load of each expert",
        ("expert", *(f"{name} a balance loss" for name in networks)),
        list(zip(range(EXPERTS), *columns, strict=True)),
        caption=f"The share of the router's choices that falls on each expert. An even share is "
        f"{1 / EXPERTS:g}.",
    )
