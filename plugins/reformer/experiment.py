"""The claims: hashing finds the keys that matter, and memory that does not grow with depth."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Growth, Run, hookimpl

from .model import Reformer, hashed, lsh_attention

SHUFFLED = Break("buckets of other tokens", "Each token is put into the bucket that another was hashed into.")

HASHED = Claim(
    name="hashing finds the keys that matter",
    sentence="Attention within buckets of similar vectors does what full attention does, with a few rounds "
    "and a small part of the pairs.",
    paper=Figure(
        "trained with 4 rounds: 91.9 % with 1 round, 99.4 with 2, 99.9 with 4, 100 with 8",
        where="table 2",
        read="table",
    ),
    rule=(
        Bound("accuracy with 1 round, hashed - random buckets", ">=", 0.06, direction=0.0),
        Bound("accuracy, full attention - 4 rounds", "<=", 0.03),
        Bound("part of the pairs seen in 4 rounds", "<=", 0.15),
    ),
    control="the same code with buckets drawn at random; each arm at its best sharpness",
    control_reaches=(Bound("accuracy, full attention", ">=", 0.9),),
    breaks=(SHUFFLED,),
    chosen_on=(0, 1),
    deviations="No training: a handwritten digit is named by the other 895, each vector attending to all by "
    "similarity, values being their labels. Chunks of 16.",
)

REVERSIBLE = Claim(
    name="memory that does not grow with depth",
    sentence="Reversible layers hardly need more memory to train when more of them are stacked; others do.",
    paper=Figure("activations stored once instead of once for each layer", where="abstract", read="abstract"),
    rule=(
        Growth("depth", what="memory", axis="layers", threshold=0.3, mode="forward+backward"),
        Growth(
            "depth", what="memory", axis="layers", threshold=0.6, of="naive", op=">=", mode="forward+backward"
        ),
    ),
    control="the same network, activations kept",
)

LONG = Claim(
    name="nearly linear in length",
    sentence="The time of hashed attention grows far more slowly with the length than that of all pairs.",
    paper=Figure("O(L log L) instead of O(L²)", where="abstract", read="abstract"),
    rule=(
        Growth("hashed attention", what="time", axis="tokens", threshold=1.4),
        Growth("hashed attention", what="time", axis="tokens", threshold=1.6, of="strong", op=">="),
    ),
    control="torch's fused attention over the same pairs, by a mask",
)

TOKENS, WIDTH = 896, 16
ROUNDS = (1, 2, 4, 8)
SHARPNESS = (2.0, 8.0, 32.0, 128.0)

Digits = tuple[Float[Tensor, "tokens pixels"], Int[Tensor, " tokens"]]
Bucketing = Callable[[Tensor, int, torch.Generator], Tensor]


@hookimpl
def experiment(run: Run) -> None:
    with torch.device("meta"):
        whole = Reformer()
    run.metric("parameters", sum(weight.numel() for weight in whole.parameters()), arm="enwik8, 64K tokens")
    run.metric("parameters", whole.positions.weight.numel(), arm="of these, positions")
    if run.wants(HASHED):
        vote(run)


def by_hash(x: Float[Tensor, "1 1 tokens dim"], rounds: int, generator: torch.Generator) -> Tensor:
    """As many buckets as give two to a chunk, as section 2 has it."""
    half = x.shape[2] // WIDTH
    return hashed(x, torch.randn(1, x.shape[3], rounds, half, generator=generator).to(x))


def at_random(x: Float[Tensor, "1 1 tokens dim"], rounds: int, generator: torch.Generator) -> Tensor:
    buckets = torch.randint(2 * (x.shape[2] // WIDTH), (1, 1, rounds, x.shape[2]), generator=generator)
    return buckets.to(x.device)


def all_in_one(x: Float[Tensor, "1 1 tokens dim"], rounds: int, generator: torch.Generator) -> Tensor:
    """Full attention: one bucket, and a chunk as large."""
    return torch.zeros(1, 1, rounds, x.shape[2], dtype=torch.long, device=x.device)


def of_others(x: Float[Tensor, "1 1 tokens dim"], rounds: int, generator: torch.Generator) -> Tensor:
    """The break: as large buckets, of other tokens."""
    found = by_hash(x, rounds, generator)
    return found[..., torch.randperm(x.shape[2], generator=generator).to(x.device)]


def vote(run: Run) -> None:
    """Each digit is named by the labels of those that it attends to, itself left out."""
    run.phase("setup")
    images, labels = data.digits()
    x = images.flatten(1) - images.flatten(1).mean(0)
    tokens = run.pick(smoke=64, quick=TOKENS, full=TOKENS)
    order = torch.randperm(len(x), generator=run.generator("digits"))
    chosen, judged = ((x[rows], labels[rows]) for rows in (order[:tokens], order[tokens : 2 * tokens]))
    ways = run.arms({"hashed": by_hash, "random buckets": at_random}, control="random buckets")
    if run.without(SHUFFLED.name):
        ways["hashed"] = of_others
    sweep = partial(
        run.sweep, values=SHARPNESS, what="sharpness", score="validation accuracy", keep="highest"
    )
    full = sweep("full attention", train=partial(attempt, run, all_in_one, 1, tokens, chosen, judged))
    best: dict[tuple[str, int], Best[float]] = {}
    run.phase("evaluate")
    for arm, way in ways.items():
        for rounds in ROUNDS:
            vote_by = partial(attempt, run, way, rounds, WIDTH, chosen, judged)
            best[arm, rounds] = sweep(f"{arm}, {rounds} rounds", train=vote_by)
            run.metric("accuracy over rounds", best[arm, rounds].result, step=rounds, arm=arm)
            run.metric(
                "part of the pairs seen", pairs_seen(run, way, rounds, chosen[0]), step=rounds, arm=arm
            )
    for rounds in ROUNDS:
        run.metric("accuracy over rounds", full.result, step=rounds, arm="full attention")
    run.headline("accuracy over rounds")
    values = {
        "accuracy with 1 round, hashed - random buckets": best["hashed", 1].result
        - best["random buckets", 1].result,
        "accuracy, full attention - 4 rounds": full.result - best["hashed", 4].result,
        "part of the pairs seen in 4 rounds": pairs_seen(run, ways["hashed"], 4, chosen[0]),
        "accuracy, full attention": full.result,
    }
    run.claim(HASHED, values, tuned=[full, *best.values()])


def attempt(
    run: Run, way: Bucketing, rounds: int, width: int, chosen: Digits, judged: Digits, sharpness: float
) -> tuple[float, float]:
    """The accuracy on either sequence of digits."""
    found = []
    for x, labels in (chosen, judged):
        vectors = x.to(run.device, run.dtype)[None, None] * sharpness
        buckets = way(vectors, rounds, run.generator("buckets"))
        votes = F.one_hot(labels, 10).to(vectors)[None, None]
        result = lsh_attention(vectors, votes, buckets, width=width, causal=False)
        found.append((result[0, 0].argmax(1).cpu() == labels).double().mean().item())
    return found[0], found[1]


def pairs_seen(run: Run, way: Bucketing, rounds: int, x: Float[Tensor, "tokens pixels"]) -> float:
    """The part of all pairs that meet in one round or more: what attends to ones at each place alone."""
    vectors = x.to(run.device, run.dtype)[None, None]
    buckets = way(vectors, rounds, run.generator("buckets"))[0, 0]
    tokens, met = len(x), torch.zeros(len(x), len(x), dtype=torch.bool)
    for of_round in buckets.cpu():
        order = (of_round * tokens + torch.arange(tokens)).argsort()
        chunk = torch.empty_like(order)
        chunk[order] = torch.arange(tokens) // WIDTH
        back = (chunk[:, None] - chunk) % (tokens // WIDTH)
        met |= back <= 1
    return met.double().mean().item()
