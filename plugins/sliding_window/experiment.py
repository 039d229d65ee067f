"""The claims: sizes, the rolling cache, how far layers carry a value, and how time and memory grow."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Bound, Break, Claim, Figure, Growth, Run, hookimpl

from ..gqa import grouped_attention
from .model import Attend, Mistral, window_attention

WINDOW = 4  # the token itself and three before it
TOKENS = 12  # the value stands 1 to 11 before the question
VALUES, NOISE = 8, 8
CHANCE = 1 / VALUES

SIZE = Claim(
    name="the released size",
    sentence="This folder's defaults have the parameters of the released model.",
    paper=Figure("7 billion; the released files hold 7,241,732,096", where="abstract, table 1", read="table"),
    rule=(Bound("parameters", "==", 7_241_732_096),),
    kind="identity",
)

ROLLING = Claim(
    name="a window is all that the cache needs",
    sentence="Read token by token from a cache of one window, a text gets the logits of the whole pass.",
    paper=Figure("a cache of fixed size, 8 times smaller at 32K tokens", where="section 2", read="text"),
    rule=(Bound("largest change of a logit, rolling cache", "<=", 1e-4),),
    kind="identity",
    control="a cache one token shorter than the window",
    control_reaches=(Bound("largest change of a logit, cache too short", ">=", 1e-3),),
    deviations="Up to the rounding of single precision; three layers, a window of 4, 29 tokens.",
)

FIXED = Break("fixed blocks", "The windows do not slide: a token sees those of its own block of W.")

RELAY = Claim(
    name="layers relay",
    sentence="Training finds the relay: each layer more lets a model recall a value from a window further "
    "away.",
    paper=Figure(
        "after k layers information has moved by up to k windows: 131 thousand tokens in 32 layers of 4,096",
        where="section 2",
        read="text",
    ),
    rule=(Bound("tokens of reach that each further layer adds", ">=", 2.5, direction=0.5),),
    guards=(Bound("accuracy beyond three windows, three layers", "<=", 0.35),),
    control="a model of one layer; each at the best of the same three rates",
    control_reaches=(
        Bound("accuracy of full attention", ">=", 0.95),
        Bound("reach of one layer", ">=", 3),
    ),
    breaks=(FIXED,),
    chosen_on=(0, 1),
    deviations="Windows of 4 (W - 1 = 3 tokens back), 12 tokens of noise with one value in them, width 32. "
    "A distance is reached if it and all shorter ones are answered in 90 % of new texts.",
)

LINEAR = Claim(
    name="grows with the length, not its square",
    sentence="Time and memory of reading a text grow in proportion to its length; the time of a token "
    "does not grow at all.",
    paper=Figure(
        "operations quadratic in the length without a window; with it no token looks at more than W others",
        where="section 2, figure 1",
        read="text",
    ),
    rule=(
        Growth("a whole text", what="time", axis="tokens", threshold=1.3),
        Growth("a whole text", what="memory", axis="tokens", threshold=1.3),
        Growth("one token", what="time", axis="tokens before", threshold=0.2, mode="decode"),
    ),
    control="the same band as a mask over all pairs, and a cache that grows",
    deviations="A window of 256 on a CPU.",
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):  # shapes alone: nothing is stored
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in Mistral().parameters())})
    if run.wants(ROLLING):
        read_from_cache(run)
    if run.wants(RELAY):
        relay(run)


@torch.no_grad()
def read_from_cache(run: Run) -> None:
    """Logits of a random model token by token, against those of the whole pass."""
    torch.manual_seed(run.seed)
    make = partial(Mistral, 50, model=32, heads=4, groups=2, layers=3, hidden=64)
    network = make(window=WINDOW).to(run.device, run.dtype)
    ids = torch.randint(50, (2, 29), generator=run.generator("tokens")).to(run.device)
    whole = network(ids)
    short = make(window=WINDOW - 1).to(run.device, run.dtype)
    short.load_state_dict(network.state_dict())
    changes = {}
    for name, reader in (("rolling cache", network), ("cache too short", short)):
        cache = reader.empty_cache(2)
        logits = torch.cat([reader(token, cache) for token in ids.split(1, 1)], 1)
        changes[f"largest change of a logit, {name}"] = (logits - whole).abs().max().item()
    run.claim(ROLLING, changes)


def within_fixed_blocks(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch groups tokens dim"],
    v: Float[Tensor, "batch groups tokens dim"],
    window: int,
) -> Float[Tensor, "batch heads tokens dim"]:
    """Blocks that do not slide: no layer carries anything over their borders."""
    block = torch.arange(q.shape[-2], device=q.device) // window
    return grouped_attention(q, k, v, mask=block[:, None] == block, causal=True)


def draw(
    distance: Int[Tensor, " batch"], generator: torch.Generator
) -> tuple[Int[Tensor, "batch tokens"], Int[Tensor, " batch"]]:
    """Texts of noise that end in a question, and the value that stands `distance` before it in each."""
    batch = len(distance)
    value = torch.randint(VALUES, (batch,), generator=generator)
    ids = torch.randint(VALUES, VALUES + NOISE, (batch, TOKENS), generator=generator)
    ids[:, -1] = VALUES + NOISE
    ids[torch.arange(batch), TOKENS - 1 - distance] = value
    return ids, value


Make = Callable[[], Mistral]


def recaller(*, layers: int, window: int | None, attend: Attend) -> Mistral:
    return Mistral(
        VALUES + NOISE + 1,
        model=32,
        heads=2,
        groups=2,
        layers=layers,
        hidden=64,
        window=window,
        attend=attend,
    )


def relay(run: Run) -> None:
    """Train models of one and of three layers, and one with full attention; draw accuracy over distance."""
    attend = within_fixed_blocks if run.without(FIXED.name) else window_attention
    makes: dict[str, Make] = run.arms(
        {
            "three layers": partial(recaller, layers=3, window=WINDOW, attend=attend),
            "one layer": partial(recaller, layers=1, window=WINDOW, attend=attend),
        },
        control="one layer",
    )
    makes["full attention"] = partial(recaller, layers=1, window=None, attend=window_attention)
    rates = run.pick(smoke=(3e-3,), quick=(1e-2, 3e-2, 1e-1), full=(3e-3, 1e-2, 3e-2, 1e-1))
    accuracy: dict[str, list[float]] = {}
    best = []
    for arm, make in makes.items():
        found = run.sweep(arm, rates, partial(train, run, arm, make), score="validation nats")
        best.append(found)
        accuracy[arm] = by_distance(run, found.result, "texts to judge by")
        for distance, right in enumerate(accuracy[arm], 1):
            run.metric("accuracy over distance", right, step=distance, arm=arm)
        run.metric("reach in tokens", reach(accuracy[arm]), arm=arm)
    run.headline("accuracy over distance")
    three, one = reach(accuracy["three layers"]), reach(accuracy["one layer"])
    beyond = accuracy["three layers"][3 * (WINDOW - 1) :]
    values = {
        "tokens of reach that each further layer adds": (three - one) / 2,
        "accuracy beyond three windows, three layers": max(beyond),
        "accuracy of full attention": min(accuracy["full attention"]),
        "reach of one layer": one,
    }
    run.claim(RELAY, values, tuned=best)


def reach(accuracy: list[float]) -> float:
    """The greatest distance up to which all are answered in 90 % of the texts."""
    return float(next((i for i, right in enumerate(accuracy) if right < 0.9), len(accuracy)))


def train(run: Run, arm: str, make: Make, rate: float) -> tuple[float, nn.Module]:
    steps = run.pick(smoke=3, quick=180, full=1500)
    torch.manual_seed(run.seed)
    network = make().to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    texts = run.generator("texts to train on")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        ids, value = draw(torch.randint(1, TOKENS, (48,), generator=texts), texts)
        loss = F.cross_entropy(network(ids.to(run.device))[:, -1], value.to(run.device))
        run.descend(loss, optimizer, step=step, arm=f"{arm}, rate {rate:g}", clip=1.0)
        schedule.step()
    return nats_to_choose_by(run, network), network


@torch.no_grad()
def nats_to_choose_by(run: Run, network: nn.Module) -> float:
    generator = run.generator("texts to choose by")
    ids, value = draw(torch.randint(1, TOKENS, (512,), generator=generator), generator)
    return F.cross_entropy(network(ids.to(run.device))[:, -1], value.to(run.device)).item()


@torch.no_grad()
def by_distance(run: Run, network: nn.Module, stream: str) -> list[float]:
    """The share of new texts that are answered, for each distance of the value."""
    run.phase("evaluate")
    each = run.pick(smoke=8, quick=200, full=1000)
    ids, value = draw(torch.arange(1, TOKENS).repeat_interleave(each), run.generator(stream))
    right = network(ids.to(run.device))[:, -1].argmax(-1).cpu() == value
    return right.double().unflatten(0, (-1, each)).mean(1).tolist()
