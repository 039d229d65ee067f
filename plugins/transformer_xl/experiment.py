"""The claims: the paper's size, and what a memory gives the first words of a segment."""

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.data.senses import Senses, senses
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, Speedup, hookimpl

from .model import TransformerXL

SIZE = Claim(
    name="the paper's size",
    sentence="The 12 layers for characters have as many parameters as the paper's table says.",
    paper=Figure("41M", where="table 2", read="table"),
    rule=(Bound("parameters, millions", "==", 41),),
    kind="identity",
)

CUT = Break("memory of another text", "The memory that a segment gets is that of another text.")

MEMORY = Claim(
    name="the memory carries context across the cut",
    sentence="A model that reads segments with a memory does not start each of them anew, and saves most of "
    "what segments three times as long save.",
    paper=Figure(
        "on One Billion Word, where no long context is to be had, the perplexity is 25.2 "
        "with recurrence and 27.1 without",
        where="section 4.2, table 7",
        read="memory",
    ),
    rule=(
        Bound("nats more at the start of a segment, without memory", ">=", 0.15, direction=0.0),
        Bound("nats more at the start of a segment, with memory", "<=", 0.05, direction=0.1),
        Bound("nats saved by the memory - half of those by longer segments", ">=", 0.05, direction=0.0),
    ),
    control="the same network without a memory, on segments as long and on segments three times as long with "
    "as many tokens a step; each at its best rate",
    control_reaches=(Bound("nats saved by longer segments alone", ">=", 0.04),),
    breaks=(CUT,),
    chosen_on=(0, 1),
    deviations="A made-up language whose topic changes every 40 words on average; segments of 8 words, a "
    "memory of 16; two layers of width 64.",
)

FASTER = Claim(
    name="evaluation without recomputing",
    sentence="A segment is evaluated many times as fast as by sliding a window over it, one token at a time.",
    paper=Figure("up to 1,874 times, for 3,800 tokens", where="table 9", read="table"),
    rule=(Speedup("next segment", over="naive", threshold=8.0, axes={"tokens": 64}),),
    control="the same network with the same context, a pass for each token",
    deviations="64 tokens after 64, two layers of width 256.",
)

WORDS, TOPICS, STAY = 48, 12, 40
SEGMENT, KEPT, LONGER = 8, 16, 24
KEPT_LATER = (0, 2, 4, 8, 16, 32, 64)  # tokens that the memory is given to evaluate with
RATES = (1e-3, 3e-3, 1e-2)

Texts = Int[Tensor, "_ _"]  # texts side by side


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            count = sum(weight.numel() for weight in TransformerXL().parameters())
        run.metric("parameters", count)
        run.claim(SIZE, {"parameters, millions": round(count / 1e6)})
    if run.wants(MEMORY):
        carry_context(run)


def stream(language: Senses, count: int, length: int, generator: torch.Generator) -> Texts:
    """Texts whose topic is drawn anew, at each word, with a chance of 1 / `STAY`."""
    topics, owned = language.own.shape
    fresh = torch.randint(topics, (count, length), generator=generator)
    change = torch.rand(count, length, generator=generator) < 1 / STAY
    change[:, 0] = True
    last = torch.where(change, torch.arange(length), 0).cummax(1).values
    return language.own[fresh.gather(1, last), torch.randint(owned, (count, length), generator=generator)]


def nats_of_the_law(language: Senses, ids: Texts) -> Float[Tensor, " length"]:
    """What who knows the law and has read all before pays for each word, on average."""
    topics, owned = language.own.shape
    chance = torch.zeros(topics, language.words).scatter_(1, language.own, 1 / owned)
    belief, paid = torch.full((len(ids), topics), 1 / topics), []
    for words in ids.T:
        joint = belief * chance[:, words].T
        paid.append(-joint.sum(1).log().mean())
        belief = joint / joint.sum(1, keepdim=True) * (1 - 1 / STAY) + 1 / (STAY * topics)
    return torch.stack(paid)


def network(run: Run) -> TransformerXL:
    """The toy: every arm begins from the same weights."""
    torch.manual_seed(run.seed)
    std = 0.02 * (512 / 64) ** 0.5  # as large beside its width as 0.02 is at 512
    net = TransformerXL(WORDS, model=64, heads=4, hidden=256, layers=2, std=std, dropout=0.0)
    return net.to(run.device, run.dtype)


def carry_context(run: Run) -> None:
    run.phase("setup")
    language = senses(run.generator("language"), words=WORDS, topics=TOPICS)
    steps, batch = run.pick(smoke=2, quick=200, full=2000), 24
    length = SEGMENT * steps + 1
    seen = stream(language, batch, length, run.generator("texts to train on"))
    chosen, judged = (
        stream(language, 64, SEGMENT * run.pick(smoke=6, quick=24, full=60) + 1, run.generator(name))
        for name in ("to choose by", "to judge by")
    )
    memories = run.arms({"with memory": KEPT, "without memory": 0}, control="without memory")
    arms = {arm: (SEGMENT, keep) for arm, keep in memories.items()} | {"longer segments": (LONGER, 0)}
    rates = run.pick(smoke=RATES[1:2], quick=RATES, full=RATES)
    best: dict[str, Best[TransformerXL]] = {}
    nats: dict[str, Float[Tensor, " tokens"]] = {}
    for arm, (tokens, keep) in arms.items():
        attempt = partial(train, run, arm, tokens, keep, seen, chosen)
        best[arm] = run.sweep(arm, rates, attempt, score="validation nats")
        nats[arm] = evaluate(run, best[arm].result, tokens, keep, judged)
        for position, paid in enumerate(nats[arm].tolist()):
            run.metric("nats over position in the segment", paid, step=position + 1, arm=arm)
        run.metric("held-out nats a word", nats[arm].mean().item(), arm=arm)
    for keep in KEPT_LATER:
        remembering = evaluate(run, best["with memory"].result, SEGMENT, keep, judged).mean().item()
        run.metric("nats a word over tokens of memory", remembering, step=keep, arm="with memory")
    known = nats_of_the_law(language, judged)[LONGER:].mean().item()
    for position in (1, LONGER):
        run.metric("nats over position in the segment", known, step=position, arm="the law, all before")
    run.headline("nats over position in the segment")
    mean = {arm: one.mean().item() for arm, one in nats.items()}
    gap = mean["without memory"] - mean["longer segments"]
    saved = mean["without memory"] - mean["with memory"]
    run.claim(
        MEMORY,
        {
            "nats more at the start of a segment, without memory": start(nats["without memory"]),
            "nats more at the start of a segment, with memory": start(nats["with memory"]),
            "nats saved by the memory - half of those by longer segments": saved - gap / 2,
            "nats saved by longer segments alone": gap,
        },
        tuned=list(best.values()),
    )


def start(nats: Float[Tensor, " tokens"]) -> float:
    """The first quarter of the segment less the last."""
    quarter = len(nats) // 4
    return (nats[:quarter].mean() - nats[-quarter:].mean()).item()


def segments(ids: Texts, tokens: int) -> Iterator[Int[Tensor, "count one_more"]]:
    """Each with the word that follows it, so that every word but the first is asked for once."""
    for first in range(0, ids.shape[1] - tokens, tokens):
        yield ids[:, first : first + tokens + 1]


def train(
    run: Run, arm: str, tokens: int, keep: int, seen: Texts, chosen: Texts, rate: float
) -> tuple[float, TransformerXL]:
    """Through the texts once, all side by side; longer segments, fewer texts, so that tokens a step are
    equal.

    Returns the nats on `chosen`, and the network.
    """
    net = network(run)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    apart = tokens // SEGMENT
    texts = torch.cat(tuple(seen[:, :-1].chunk(apart, 0)), 1) if apart > 1 else seen
    pieces = list(segments(texts, tokens))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, len(pieces) + 1, pct_start=0.1)
    memory: list[Tensor] = []
    run.phase("train")
    for step in run.steps(len(pieces), f"{arm}, rate {rate:g}"):
        nats, memory = net.loss(pieces[step].to(run.device), given(run, memory), keep=keep)
        run.descend(nats.mean(), optimizer, step=step, metric=f"loss at rate {rate:g}", arm=arm, clip=1.0)
        schedule.step()
    run.phase("evaluate")
    return evaluate(run, net, tokens, keep, chosen).mean().item(), net


def given(run: Run, memory: list[Tensor]) -> list[Tensor]:
    """The memory as it is; with the break, that of the next text."""
    return [layer.roll(1, 0) for layer in memory] if run.without(CUT.name) else memory


@torch.no_grad()
def evaluate(run: Run, net: TransformerXL, tokens: int, keep: int, ids: Texts) -> Float[Tensor, " {tokens}"]:
    """Nats by position in the segment; the first `LONGER` words, with no memory yet, are not counted."""
    memory: list[Tensor] = []
    found = []
    for piece in segments(ids, tokens):
        nats, memory = net.loss(piece.to(run.device), given(run, memory), keep=keep)
        found.append(nats.double().mean(0).cpu())
    return torch.stack(found[LONGER // tokens :]).mean(0)
