"""Checks parameter counts and the rolling cache, and measures how reach grows with depth and how time and
memory grow with length.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Growth,
    Run,
    Sweep,
    Trial,
    at_least,
    at_most,
    hookimpl,
)

from ..gqa import grouped_attention
from .model import Attend, Mistral, window_attention

WINDOW = 4  # the token itself and the three tokens before it
TOKENS = 12  # the value is 1 to 11 tokens before the question
VALUES, NOISE = 8, 8
CHANCE = 1 / VALUES

SIZE = Claim(
    name="parameter count of the released model",
    seeded_as="the released size",
    sentence="With its default sizes, our model has the same number of parameters as the released model.",
    paper=Figure(
        "The paper states 7 billion parameters. The released files have 7,241,732,096",
        where="abstract, table 1",
        read="table",
    ),
    rule=(Bound("parameters", "==", 7_241_732_096),),
    kind="identity",
)

ROLLING = Claim(
    name="logits with a rolling cache",
    seeded_as="a window is all that the cache needs",
    sentence="Decoding token by token with a cache of one window gives the same logits as one forward pass "
    "over the whole text.",
    paper=Figure(
        "The cache has a fixed size and is 8 times smaller at 32K tokens", where="section 2", read="text"
    ),
    rule=(Bound("largest change of a logit, rolling cache", "<=", 1e-4),),
    kind="identity",
    control="a cache one token shorter than the window",
    control_reaches=(Bound("largest change of a logit, cache too short", ">=", 1e-3),),
    deviations="The equality holds up to rounding in float32. The model has three layers and a window of "
    "4, and reads 29 tokens.",
)

FIXED = Break(
    "fixed blocks", "Windows do not slide. A token sees only its own block of W tokens.", "near miss"
)
AVERAGES = Break(
    "averages of the window",
    "The three layers have no attention. Each token gets the mean of the values in its window.",
    "rival",
)

RELAY = Claim(
    name="reach of stacked windows",
    seeded_as="layers relay",
    sentence="After 180 steps of training, the largest distance over which a model recalls a value grows "
    "with the number of its sliding-window layers.",
    paper=Figure(
        "After k layers, information has moved by up to k windows, or 131 thousand tokens with 32 layers and "
        "a window of 4,096",
        where="section 2",
        read="text",
    ),
    rule=(
        at_least(
            "half of the reach",
            "three layers",
            2.5,
            minus="one layer",
            toward=0.5,
            called="tokens of reach that each further layer adds",
        ),
    ),
    guards=(
        at_most(
            "accuracy beyond three windows",
            "three layers",
            0.35,
            called="accuracy beyond three windows, three layers",
        ),
    ),
    control="a model of one layer. Each model uses its best learning rate from the same grid. The control "
    "must reach its whole window, and one layer of full attention must reach all distances",
    control_arm="one layer",
    control_reaches=(
        at_least("lowest accuracy", "full attention", 0.95, called="accuracy of full attention"),
        at_least("reach", "one layer", 3, called="reach of one layer"),
    ),
    breaks=(FIXED, AVERAGES, UNTRAINED),
    chosen_on=(0, 1),
    deviations="A window has 4 tokens: the token itself and W - 1 = 3 tokens before it. A text has 12 tokens "
    "of noise and one value. The hidden size is 32. A distance is reached if the model answers correctly in "
    "90 % of held-out texts at this distance and at all shorter distances. The paper also claims that the "
    "quality of the model does not suffer, which we do not test.",
    headline=True,
)

LINEAR = Claim(
    name="growth of time and memory with length",
    seeded_as="grows with the length, not its square",
    sentence="With sliding-window attention, the time and memory to read a text grow in proportion to its "
    "length, and the time to generate a token does not grow.",
    paper=Figure(
        "Without a window, the number of operations is quadratic in the length. With a window, a token "
        "attends to at most W others",
        where="section 2, figure 1",
        read="text",
    ),
    rule=(
        Growth("a whole text", what="time", axis="tokens", threshold=1.3),
        Growth("a whole text", what="memory", axis="tokens", threshold=1.3),
        Growth("one token", what="time", axis="tokens before", threshold=0.2, mode="decode"),
    ),
    control="the same band as a mask over all pairs, and a growing cache",
    deviations="The window has 256 tokens, texts have 512 to 2,048 tokens, and times are measured on a CPU. "
    "Between 256 and 1,024 tokens, time and memory grow faster, because 256 tokens are a single window.",
)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):  # shapes only, no storage
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in Mistral().parameters())})
    if run.wants(ROLLING):
        read_from_cache(run)
    relay(run)


@torch.no_grad()
def read_from_cache(run: Run) -> None:
    """Compare a random model's logits when it decodes token by token with the logits of one forward pass."""
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
    """Attention within fixed blocks, so no layer crosses a block border."""
    block = torch.arange(q.shape[-2], device=q.device) // window
    return grouped_attention(q, k, v, mask=block[:, None] == block, causal=True)


def averages(
    q: Float[Tensor, "batch heads tokens dim"],
    k: Float[Tensor, "batch heads tokens dim"],
    v: Float[Tensor, "batch heads tokens dim"],
    window: int,
) -> Float[Tensor, "batch heads tokens dim"]:
    """The mean of the values in the window, zero-padded at the start. Queries and keys are ignored."""
    return F.pad(v, (0, 0, window - 1, 0)).unfold(2, window, 1).mean(-1)


def draw(
    distance: Int[Tensor, " batch"], generator: torch.Generator
) -> tuple[Int[Tensor, "batch tokens"], Int[Tensor, " batch"]]:
    """Texts of noise that end with a question, `distance` tokens after a value, and the values."""
    batch = len(distance)
    value = torch.randint(VALUES, (batch,), generator=generator)
    ids = torch.randint(VALUES, VALUES + NOISE, (batch, TOKENS), generator=generator)
    ids[:, -1] = VALUES + NOISE
    ids[torch.arange(batch), TOKENS - 1 - distance] = value
    return ids, value


def recaller(*, layers: int, window: int | None = WINDOW, attend: Attend = window_attention) -> Mistral:
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


Make = Callable[[], Mistral]


def relay(run: Run) -> None:
    """Train one and three windowed layers and one of full attention, and plot accuracy against distance."""
    three = partial(recaller, layers=3)
    run.compare(
        RELAY,
        arms={"three layers": Arm(three), "one layer": Arm(partial(recaller, layers=1))},
        attempt=train,
        read=by_distance,
        grid=run.pick(smoke=(3e-3,), quick=(1e-2, 3e-2, 1e-1), full=(3e-3, 1e-2, 3e-2, 1e-1)),
        score="validation nats",
        yardsticks={"full attention": Arm(partial(recaller, layers=1, window=None))},
        breaks={
            FIXED.name: {"three layers": Arm(partial(three, attend=within_fixed_blocks))},
            AVERAGES.name: {"three layers": Arm(partial(three, attend=averages))},
        },
    )
    run.headline("accuracy over distance")


def train(at: Trial, make: Make, rate: float) -> tuple[float, Mistral]:
    """Train a network, and return its loss in nats on the values in validation texts and the network."""
    run, network = at.run, make().to(at.run.device, at.run.dtype)
    steps = run.pick(smoke=3, quick=180, full=1500)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    texts, name = at.generator("texts to train on"), f"{at.name}, rate {rate:g}"
    run.phase("train")
    for step in at.steps(steps, name, state=(network, optimizer, schedule)):
        ids, value = draw(torch.randint(1, TOKENS, (48,), generator=texts), texts)
        loss = F.cross_entropy(network(ids.to(run.device))[:, -1], value.to(run.device))
        at.descend(loss, optimizer, step=step, arm=name, clip=1.0)
        schedule.step()
    run.phase("evaluate")
    return nats_to_choose_by(run, network), network


@torch.no_grad()
def nats_to_choose_by(run: Run, network: Mistral) -> float:
    generator = run.data("texts to choose by", "choose")
    ids, value = draw(torch.randint(1, TOKENS, (512,), generator=generator), generator)
    return F.cross_entropy(network(ids.to(run.device))[:, -1], value.to(run.device)).item()


def by_distance(at: Trial, found: Sweep[Mistral]) -> dict[str, float]:
    """The model's reach, its lowest accuracy, and its accuracy beyond three windows."""
    accuracy = answered(at.run, found.chosen)
    for distance, right in enumerate(accuracy, 1):
        at.metric("accuracy over distance", right, step=distance)
    reached = reach(accuracy)
    at.metric("reach in tokens", reached)
    return {
        "reach": reached,
        "half of the reach": reached / 2,  # three layers reach two windows further than one
        "lowest accuracy": min(accuracy),
        "accuracy beyond three windows": max(accuracy[3 * (WINDOW - 1) :]),
    }


@torch.no_grad()
def answered(run: Run, network: Mistral) -> list[float]:
    """Accuracy on test texts, for each distance of the value."""
    each = run.pick(smoke=8, quick=200, full=1000)
    ids, value = draw(torch.arange(1, TOKENS).repeat_interleave(each), run.data("texts to judge by", "judge"))
    right = network(ids.to(run.device))[:, -1].argmax(-1).cpu() == value
    return right.double().unflatten(0, (-1, each)).mean(1).tolist()


def reach(accuracy: list[float]) -> float:
    """The largest distance up to which accuracy is at least 90 % everywhere."""
    return float(next((i for i, right in enumerate(accuracy) if right < 0.9), len(accuracy)))
