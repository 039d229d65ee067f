"""The claims: sizes, and how many facts a sparse layer holds for what it costs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from ..rmsnorm import RMSNorm
from ..sliding_window import SwiGLU
from .model import Mixtral, SparseExperts, active_parameters, balance_loss, loads

SIZE = Claim(
    name="the released sizes",
    sentence="This folder's defaults have the parameters of the released model, and the active ones.",
    paper=Figure(
        "47 billion, 13 billion active; the released files hold 46,702,792,704",
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

FACTS = Claim(
    name="holds what a large one holds, for the cost of a small one",
    sentence="At the cost of a small dense layer, a layer of experts learns most of what a dense layer of "
    "all its parameters learns over the small one.",
    paper=Figure(
        "level with or ahead of LLaMA 2 70B with 13 billion active parameters",
        where="abstract",
        read="abstract",
    ),
    rule=(
        Bound("share of the gap closed, small dense to large dense", ">=", 0.6, direction=0.0),
        Bound("operations a token, experts / large dense", "<=", 0.35),
    ),
    control="a dense layer that costs a token as much",
    control_reaches=(
        Bound("facts the large dense layer holds more than the small", ">=", 0.15),
        Bound("facts right, small dense", ">=", 0.1),
    ),
    breaks=(ONE_EXPERT,),
    chosen_on=(0, 1),
    deviations="A random table of pairs of names and their values in place of text; one layer of width 32; "
    "each arm at the best of the same rates, chosen by another part of the table than it is judged by. No "
    "loss that balances the experts: the report mentions none; a table shows what one would change.",
)

FASTER = Claim(
    name="faster than a dense layer of its size",
    sentence="One token takes less time than in a dense layer of as many parameters.",
    paper=Figure("five times fewer active parameters than LLaMA 2 70B", where="section 3", read="text"),
    rule=(Speedup("a layer", over="dense, as many parameters", threshold=1.5, axes={"tokens": 1}),),
    control="a dense SwiGLU of all experts' parameters",
    deviations="The dense layer holds the same weights side by side, laid out before the clock starts; one "
    "layer alone, on a CPU, given the same token again and again: the weights of its two experts may stay in "
    "the processor's cache where those of the dense layer do not, which gives more than the four times that "
    "the bytes account for.",
)

NAMES, VALUES = 96, 64
WIDTH, EXPERTS, ACTIVE = 32, 8, 2
HIDDEN = 32  # of an expert
BALANCE = (
    0.02  # the weight of the loss that balances the experts: that of the released config.json, from memory
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):  # shapes alone: nothing is stored
            network = Mixtral()
        total = sum(weight.numel() for weight in network.parameters())
        run.claim(SIZE, {"parameters": total, "active parameters": active_parameters(network)})
    if run.wants(FACTS):
        learn_facts(run)


class Recall(nn.Module):
    """Two names in, the value of their pair out: embeddings, one feed-forward layer and its norm, readout."""

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
        """What the router of a layer of experts says."""
        return self.feed_forward.router(self.norms[0](self.embed(pairs)))


class SameForAll(SparseExperts):
    """Experts whose router does not look at the token."""

    def forward(self, x: Float[Tensor, "tokens model"]) -> Float[Tensor, "tokens model"]:
        weights, chosen, _ = self.router(torch.ones_like(x))
        return self.dispatch(x, weights, chosen)


Make = Callable[[], nn.Module]
Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Table:
    """Random facts. All are learned; one half chooses the rate, the other judges."""

    pairs: Int[Tensor, "facts 2"]
    value: Int[Tensor, " facts"]
    choose: Int[Tensor, " half"]
    judge: Int[Tensor, " half"]


def draw_table(run: Run) -> Table:
    pairs = torch.cartesian_prod(torch.arange(NAMES), torch.arange(NAMES))
    value = torch.randint(VALUES, (len(pairs),), generator=run.generator("table"))
    order = torch.randperm(len(pairs), generator=run.generator("parts"))
    return Table(pairs, value, *order.chunk(2))


def learn_facts(run: Run) -> None:
    """A random table by heart: dense layers of two sizes, and experts between them."""
    sparse = SameForAll if run.without(ONE_EXPERT.name) else SparseExperts
    makes: dict[str, Make] = run.arms(
        {
            "experts": partial(sparse, WIDTH, HIDDEN, experts=EXPERTS, active=ACTIVE),
            "small dense": partial(SwiGLU, WIDTH, ACTIVE * HIDDEN),
        },
        control="small dense",
    )
    # Not one of the arms: it measures how much there is to gain, in a null run as in any other.
    makes["large dense"] = partial(SwiGLU, WIDTH, EXPERTS * HIDDEN)
    table = draw_table(run)
    rates = run.pick(smoke=(2e-2,), quick=(7e-3, 2e-2, 6e-2, 1.8e-1), full=(2e-3, 7e-3, 2e-2, 6e-2, 1.8e-1))
    right: dict[str, float] = {}
    best: dict[str, Best[tuple[Recall, Curve]]] = {}
    for arm, make in makes.items():

        def attempt(rate: float, arm: str = arm, make: Make = make) -> tuple[float, tuple[Recall, Curve]]:
            network, curve = train(run, f"{arm}, rate {rate:g}", make, rate, table)
            return curve[-1][1], (network, curve)

        best[arm] = run.sweep(arm, rates, attempt, score="validation facts right", keep="highest")
        network, curve = best[arm].result
        right[arm] = accuracy(network, table, table.judge, run)
        run.metric("facts right", right[arm], arm=arm)
        for step, share in curve:
            run.metric("facts right at the best rate", share, step=step, arm=arm)
    run.headline("facts right at the best rate")
    gap = right["large dense"] - right["small dense"]
    cost = {arm: operations(found.result[0]) for arm, found in best.items()}
    values = {
        "share of the gap closed, small dense to large dense": (
            (right["experts"] - right["small dense"]) / gap if gap else math.nan
        ),
        "operations a token, experts / large dense": cost["experts"] / cost["large dense"],
        "facts the large dense layer holds more than the small": gap,
        "facts right, small dense": right["small dense"],
    }
    run.claim(FACTS, values, tuned=list(best.values()))
    if run.wants(SIZE):
        show_loads(run, makes["experts"], best["experts"], table)


def train(
    run: Run, arm: str, make: Make, rate: float, table: Table, *, balance: float = 0.0
) -> tuple[Recall, Curve]:
    """The network, and while it learned the share of facts right, of those to choose by.

    balance  the weight of the loss that balances the experts
    """
    steps = run.pick(smoke=3, quick=350, full=2000)
    torch.manual_seed(run.seed)
    network = Recall(make()).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    drawn, curve = run.generator("facts"), []
    run.phase("train")
    for step in run.steps(steps, arm):
        rows = torch.randint(len(table.pairs), (768,), generator=drawn)
        pairs = table.pairs[rows].to(run.device)
        loss = F.cross_entropy(network(pairs), table.value[rows].to(run.device))
        if balance:
            _, chosen, logits = network.routed(pairs)
            loss = loss + balance * balance_loss(chosen, logits)
        run.descend(loss, optimizer, step=step, arm=arm)
        schedule.step()
        if (step + 1) % max(steps // 10, 1) == 0:
            curve.append((step + 1, accuracy(network, table, table.choose, run)))
    return network, curve


@torch.no_grad()
def accuracy(network: Recall, table: Table, rows: Int[Tensor, " some"], run: Run) -> float:
    found = network(table.pairs[rows].to(run.device)).argmax(-1).cpu()
    return (found == table.value[rows]).double().mean().item()


def operations(network: Recall) -> int:
    """Multiply-adds that a token costs in the feed-forward layer, with the router's."""
    layer = network.feed_forward
    if isinstance(layer, SparseExperts):
        experts, hidden, model = layer.w1.shape
        return 3 * layer.router.active * hidden * model + experts * model
    return sum(weight.numel() for weight in layer.parameters())


def show_loads(run: Run, make: Make, best: Best[tuple[Recall, Curve]], table: Table) -> None:
    """How evenly the experts are chosen, as learned above and with a loss that balances them."""
    balanced, _ = train(run, "experts, balanced", make, best.value, table, balance=BALANCE)
    run.phase("evaluate")
    networks = {"without": best.result[0], "with": balanced}
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
        caption=f"The share of the tokens' choices that falls on each expert; even is {1 / EXPERTS:g}.",
    )
