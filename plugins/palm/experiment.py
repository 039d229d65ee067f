"""The claims: sizes, parallel layers against serial ones, one head of keys and values against all."""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from .model import PALM_8B, PALM_62B, PALM_540B, PaLM, ParallelBlock, attend

SIZE = Claim(
    name="the paper's sizes",
    sentence="This folder's matrices have the parameters of the paper's table at each of three sizes.",
    paper=Figure("8.63, 62.50 and 540.35 billion", where="section 2.1, table 1", read="table"),
    rule=(
        Bound("billions of parameters, 8B", "==", 8.63),
        Bound("billions of parameters, 62B", "==", 62.5),
        Bound("billions of parameters, 540B", "==", 540.35),
    ),
    kind="identity",
    deviations="The gains of the norms are left out; with them the largest has 540.36 billion.",
)

NO_FEED_FORWARD = Break("no feed-forward", "What stands beside attention adds nothing.")
BLIND_HEAD = Break("a head that does not look", "The one head gives every token the value of that token.")

PARALLEL = Claim(
    name="parallel layers",
    sentence="Blocks whose halves stand side by side lose at most 3 % against blocks in series, with half "
    "the products one after another, and train faster.",
    paper=Figure(
        "about 15 % faster at large scale, a little worse at 8 billion parameters, not at 62",
        where="section 2",
        read="text",
    ),
    rule=(
        Bound("loss, parallel / serial", "<=", 1.03, direction=1.05, ratio=True),
        Bound("products of weights in a row, parallel / serial", "<=", 0.6),
        Speedup("blocks, a training step", of="parallel", over="serial, fused", threshold=1.05, mode="until"),
    ),
    control="blocks in series, whose projections are fused as well; each at the best of the same rates",
    control_reaches=(Bound("loss without feed-forward / serial", ">=", 1.04),),
    breaks=(NO_FEED_FORWARD,),
    chosen_on=(0, 1),
    deviations="A character model of two layers and width 48, 150 steps; all heads have keys of their own in "
    "both arms. Time on a CPU, where a matrix product of this size already keeps it busy.",
)

ONE_HEAD = Claim(
    name="one head of keys and values",
    sentence="One head of keys and values for all queries costs hardly any quality and makes decoding cheap.",
    paper=Figure(
        "a neutral effect on quality and training speed, cheaper decoding", where="section 2", read="text"
    ),
    rule=(
        Bound("part of what not looking loses, one head", "<=", 0.5, direction=1.0),
        Bound("numbers in the cache, one head / all heads", "<=", 0.3),
        Speedup(
            "one token",
            over="a cache of all heads",
            threshold=1.5,
            axes={"tokens before": 4096},
            mode="decode",
        ),
    ),
    control="as many heads of keys and values as of queries, in parallel blocks alike",
    control_reaches=(Bound("loss with a head that does not look / all heads", ">=", 1.03),),
    breaks=(BLIND_HEAD,),
    chosen_on=(0, 1, 2),
    deviations="As above, 4 heads; what is lost is compared with what a head that does not look loses. The "
    "time is that of a block of width 512 after 4,096 tokens.",
)

TOKENS = 48  # of a window


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
        with torch.device("meta"):  # shapes alone: nothing is stored
            total = sum(weight.numel() for weight in PaLM(**size).parameters() if weight.ndim > 1)
        billions[f"billions of parameters, {name}"] = round(total / 1e9, 2)
    run.claim(SIZE, billions)


class SerialBlock(nn.Module):
    """x + Attention(LayerNorm(x)), then the feed-forward layer on the normalised sum: four products."""

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
    """Attention alone; the matrices of the other half lie idle."""

    def forward(
        self,
        x: Float[Tensor, "batch tokens model"],
        kv: Float[Tensor, "2 batch groups room dim"] | None = None,
        first: int = 0,
    ) -> Float[Tensor, "batch tokens model"]:
        q, k, v = self.read[0](self.norms[0](x)).split(self.widths, -1)
        return x + self.write[0](attend(q, k, v, self.dim, kv, first))


class WithoutLooking(ParallelBlock):
    """Every head gives a token the value of that token."""

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


def compare(run: Run) -> None:
    ids, alphabet = data.characters(data.text())
    text = data.stretches(ids, run.seed)
    size = {"model": 48, "heads": HEADS, "layers": 2, "dim": 12, "hidden": 128}

    def make(block: type[nn.Module], groups: int) -> partial[PaLM]:
        return partial(PaLM, len(alphabet), **size, groups=groups, block=block)

    parallel = WithoutFeedForward if run.without(NO_FEED_FORWARD.name) else ParallelBlock
    one_head = WithoutLooking if run.without(BLIND_HEAD.name) else ParallelBlock
    order = run.arms(
        {"parallel": make(parallel, HEADS), "serial": make(SerialBlock, HEADS)}, control="serial"
    )
    heads = run.arms(
        {"one head": make(one_head, 1), "all heads": make(ParallelBlock, HEADS)}, control="all heads"
    )
    makes: dict[str, partial[PaLM]] = {}
    if run.wants(PARALLEL):
        makes |= {**order, "no feed-forward": make(WithoutFeedForward, HEADS)}
    if run.wants(ONE_HEAD):
        makes |= {**heads, "does not look": make(WithoutLooking, HEADS)}
    if not run.null and not run.broken:
        makes["all heads"] = makes["parallel"]  # the same network: trained once
    rates = run.pick(
        smoke=(1.2e-2,), quick=(1.2e-2, 2.4e-2, 4.8e-2), full=(3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2)
    )
    best: dict[str, Best[Trained]] = {}
    for arm, build in makes.items():
        if arm == "all heads" and build is makes.get("parallel"):
            best[arm] = best["parallel"]
            continue

        def attempt(rate: float, arm: str = arm, build: partial[PaLM] = build) -> tuple[float, Trained]:
            network, course = train(run, build, text, rate=rate, arm=f"{arm}, rate {rate:g}")
            return evaluate(run, network, text.choose, "windows to choose by"), (network, course)

        best[arm] = run.sweep(arm, rates, attempt, score="validation nats")
    networks = {arm: found.result[0] for arm, found in best.items()}
    nats = {
        arm: evaluate(run, network, text.judge, "windows to judge by") for arm, network in networks.items()
    }
    for arm, loss in nats.items():
        run.metric("held-out nats a character", loss, arm=arm)
        for step, then in best[arm].result[1]:
            run.metric("held-out nats over steps, at the best rate", then, step=step, arm=arm)
    run.headline("held-out nats over steps, at the best rate")
    if run.wants(PARALLEL):
        values = {
            "loss, parallel / serial": nats["parallel"] / nats["serial"],
            "products of weights in a row, parallel / serial": products(networks["parallel"])
            / products(networks["serial"]),
            "loss without feed-forward / serial": nats["no feed-forward"] / nats["serial"],
        }
        run.claim(PARALLEL, values, tuned=[best[arm] for arm in ("parallel", "serial")])
    if run.wants(ONE_HEAD):
        cached = [networks[arm].empty_cache(1, 1).kv.numel() for arm in ("one head", "all heads")]
        values = {
            "part of what not looking loses, one head": (nats["one head"] - nats["all heads"])
            / (nats["does not look"] - nats["all heads"]),
            "numbers in the cache, one head / all heads": cached[0] / cached[1],
            "loss with a head that does not look / all heads": nats["does not look"] / nats["all heads"],
        }
        run.claim(ONE_HEAD, values, tuned=[best[arm] for arm in ("one head", "all heads")])


Course = list[tuple[int, float]]  # steps, and the held-out nats after them
Trained = tuple[PaLM, Course]


def products(network: PaLM) -> int:
    """Linear layers of a block, each of which waits for the one before."""
    return sum(isinstance(layer, nn.Linear) for layer in network.blocks[0].modules())


def train(run: Run, build: partial[PaLM], text: data.Parts, *, rate: float, arm: str) -> Trained:
    steps = run.pick(smoke=3, quick=150, full=3000)
    torch.manual_seed(run.seed)
    network = build().to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    batches = run.generator("batches")
    course: Course = []
    run.phase("train")
    for step in run.steps(steps, arm):
        loss = network.loss(data.windows(text.train, TOKENS + 1, 8, batches).to(run.device))
        run.descend(loss, optimizer, step=step, arm=arm, clip=1.0)
        schedule.step()
        if (step + 1) % max(steps // 6, 1) == 0:
            course.append((step + 1, nats_of(network, text.judge, 32, run.generator("windows to plot"))))
    return network, course


def evaluate(run: Run, network: PaLM, pieces: tuple[Tensor, ...], stream: str) -> float:
    """Nats a character on windows that are the same for every arm."""
    run.phase("evaluate")
    return nats_of(network, pieces, run.pick(smoke=8, quick=192, full=1024), run.generator(stream))


@torch.no_grad()
def nats_of(network: PaLM, pieces: tuple[Tensor, ...], count: int, generator: torch.Generator) -> float:
    ids = data.windows(pieces, TOKENS + 1, count, generator).to(network.embed.weight.device)
    return F.cross_entropy(network(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item()
