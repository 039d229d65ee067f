"""Checks the parameter count, and compares losses with and without memory and with absolute positions."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack.data.senses import Senses, senses
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
from readtrack.runs.on_text import bits_per_character

from .arms import (
    KEPT,
    MODEL,
    SEGMENT,
    WORDS,
    Biased,
    Carried,
    Outcome,
    Reading,
    Segments,
    attend_by,
    number_places,
    transformer_xl,
)
from .model import TransformerXL

SIZE = Claim(
    name="parameter count of the 12-layer model",
    sentence="The 12-layer character model has the number of parameters given in the paper's table.",
    paper=Figure("41M parameters", where="table 2", read="table"),
    rule=(Bound("parameters, millions", "==", 41),),
    kind="identity",
)

HALF = "nats saved by memory - half of those by longer segments"

OTHERS = Break("memory of another text", "Each segment gets the memory of another text.", "near miss")
UNLEARNED = Break(
    "memory in evaluation only",
    "The network is trained without a memory, and evaluated with one.",
    "near miss",
)
COUNTS = Break(
    "unigram cache",
    "The network has no memory. Its prediction is mixed with a unigram model of the words that the memory "
    "would cover. The mixing weight is chosen on the validation texts.",
    "rival",
)

CARRIED = Break(
    "GRU with a carried state",
    "A GRU of the same hidden size and number of layers replaces the Transformer. Each segment starts from "
    "the state at the end of the previous segment, which can depend on all earlier words.",
    "rival",
)

STEPS = 200
LANGUAGE = (
    "The texts are in an artificial language. Their topic changes every 40 words on average, and the word "
    "order carries no information. Segments have 8 words, and the memory holds 16. Models have two layers of "
    "hidden size 64 without dropout and are trained for 200 AdamW steps with batches of 24 texts. The paper "
    "trains models of 12 or more layers on WikiText-103 and enwik8 with Adam. "
)

MEMORY = Claim(
    name="loss at the start of a segment, with and without memory",
    sentence="After 200 steps, a model with a memory predicts the first words of a segment nearly as well as "
    "the last words. The memory lowers the loss by more than half as much as tripling the segment length "
    "does.",
    paper=Figure(
        "On One Billion Word, which has no long context, the perplexity is 25.2 "
        "with recurrence and 27.1 without",
        where="section 4.2, table 7",
        read="table",
    ),
    rule=(
        at_most("nats per word, segment start - segment end", "with memory", 0.05, toward=0.1),
        Bound(HALF, ">=", 0.05, direction=0.0),
    ),
    control="the same network without memory, on segments of the same length, and on segments three times as "
    "long with the same number of tokens per step. Each network uses its best learning rate from the same "
    "grid",
    control_arm="without memory",
    control_reaches=(
        at_least("nats per word, segment start - segment end", "without memory", 0.15),
        at_least("nats per word", "without memory", 0.04, minus="longer segments"),
    ),
    after_steps=STEPS,
    breaks=(OTHERS, UNLEARNED, COUNTS, CARRIED, UNTRAINED),
    chosen_on=(0, 1),
    deviations=LANGUAGE + "The paper's numbers are for a word-level corpus of shuffled sentences, where "
    "recurrence lowers the perplexity by 1.9.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced", with the same bounds. The requirement '
            "that the control be worse at the start of a segment used to be a bound and is now a condition. "
            "The near misses and the rival are new."
        ),
        (
            "The GRU with a carried state is a second rival. On seed 7101, its loss is 0.01 nats higher at "
            "the start of a segment than at the end, and it saves 0.25 nats more than half of what longer "
            "segments save."
        ),
    ),
)

NO_DISTANCES = Break("no distances", "Scores depend only on the content of the key.", "near miss")
BIAS = Break(
    "learned bias per distance",
    "Each head learns a bias for each distance and adds it to the scores. All distances beyond those in "
    "training share one bias.",
    "rival",
)

POSITIONS = Claim(
    name="loss with relative and absolute positions",
    sentence="After 200 steps, and with a memory four times as long as in training, a model with relative "
    "positions has a lower loss than a model with absolute positions within each segment.",
    paper=Figure(
        "On WikiText-103, with recurrence and the loss on all tokens, the perplexity is 26.77 with the "
        "paper's positions and 27.94 with those of Shaw and others. The paper argues that absolute positions "
        "cannot tell segments apart (section 3.3) and measures them only without recurrence",
        where="section 4.2, table 6",
        read="table",
    ),
    rule=(
        at_most("nats per word, long memory", "with memory", -0.02, minus="absolute positions", toward=0.0),
    ),
    control="the same network and memory, with sinusoids of the position within the segment added to its "
    "input",
    control_arm="absolute positions",
    control_reaches=(at_least("nats per word", "without memory", 0.02, minus="absolute positions"),),
    after_steps=STEPS,
    breaks=(NO_DISTANCES, BIAS, UNTRAINED),
    chosen_on=(0, 1),
    deviations=LANGUAGE + "In this language, the distance of a word carries no information except how long "
    "ago it occurred. The memory holds 64 words in evaluation and 16 in training.",
)

FASTER = Claim(
    name="evaluation speed with a memory",
    sentence="With a memory, evaluating a segment is at least eight times as fast as with a window that "
    "slides over it one token at a time, and faster than one pass over the context and the segment.",
    paper=Figure("Evaluation is up to 1,874 times as fast, for 3,800 tokens", where="table 9", read="table"),
    rule=(
        Speedup("next segment", over="naive", threshold=8.0, axes={"tokens": 64}),
        Speedup("next segment", over="strong", threshold=1.2, axes={"tokens": 64}),
    ),
    control="the same network with the same context: a pass for each token, and one pass over all tokens",
    deviations="A segment of 64 tokens follows a context of 64 tokens. The model has two layers of hidden "
    "size 256. The speed-up over a pass for each token grows with the length of the segment, which is 3,800 "
    "tokens in the paper. Rotary positions with a KV cache avoid the same recomputation, but compute a "
    "different function and are not timed here.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced", and the rule had only the first bound. One '
            "pass over context and segment is the natural alternative to a memory, so the rule now includes "
            "it."
        ),
    ),
)

TOPICS, STAY = 12, 40
LONGER = 24  # tokens of a longer segment (the usual length is `SEGMENT`)
KEPT_LATER = (0, 16, 64)  # tokens of memory in evaluation
RATES = (1e-3, 3e-3, 1e-2)
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)  # weights of the unigram cache in a prediction

Texts = Int[Tensor, "_ _"]  # texts as rows


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            count = sum(weight.numel() for weight in TransformerXL().parameters())
        run.metric("parameters", count)
        run.claim(SIZE, {"parameters, millions": round(count / 1e6)})
    if run.option("text", ""):  # --data
        read_text(run)
    elif run.wants(MEMORY, POSITIONS):
        carry_context(run)


def read_text(run: Run) -> None:
    """Train on windows of four segments, with a memory of one segment and without memory."""
    model, heads, layers = run.pick(smoke=(8, 2, 1), quick=(96, 4, 3), full=(512, 8, 12))
    segment = run.pick(smoke=4, quick=32, full=128)
    dropout = run.pick(smoke=0.0, quick=0.0, full=0.1)
    shape = {"model": model, "heads": heads, "hidden": 4 * model, "layers": layers, "dropout": dropout}
    bits_per_character(
        run,
        {
            "with memory": lambda vocab: Segments(TransformerXL(vocab, **shape), segment, keep=segment),
            "without memory": lambda vocab: Segments(TransformerXL(vocab, **shape), segment, keep=0),
        },
        unjudged=(MEMORY, POSITIONS),
        window=4 * segment,
        steps=run.option("steps", run.pick(smoke=2, quick=300, full=20_000)),
        rates=run.pick(smoke=(0.001,), quick=(0.001, 0.003), full=(0.0001, 0.0003, 0.001)),
        paper="The paper reports 1.06 on enwik8 with 12 layers, 41 million parameters and segments of 512 "
        "characters.",
    )


def stream(language: Senses, count: int, length: int, generator: torch.Generator) -> Texts:
    """Texts whose topic is drawn again at each word with probability 1 / `STAY`."""
    topics, owned = language.own.shape
    fresh = torch.randint(topics, (count, length), generator=generator)
    change = torch.rand(count, length, generator=generator) < 1 / STAY
    change[:, 0] = True
    last = torch.where(change, torch.arange(length), 0).cummax(1).values
    return language.own[fresh.gather(1, last), torch.randint(owned, (count, length), generator=generator)]


def nats_of_the_law(language: Senses, ids: Texts) -> Float[Tensor, " length"]:
    """Mean loss at each position for a predictor that knows the generating process and all previous words."""
    topics, owned = language.own.shape
    chance = torch.zeros(topics, language.words).scatter_(1, language.own, 1 / owned)
    belief, paid = torch.full((len(ids), topics), 1 / topics), []
    for words in ids.T:
        joint = belief * chance[:, words].T
        paid.append(-joint.sum(1).log().mean())
        belief = joint / joint.sum(1, keepdim=True) * (1 - 1 / STAY) + 1 / (STAY * topics)
    return torch.stack(paid)


class World(NamedTuple):
    language: Senses
    seen: Texts
    chosen: Texts
    judged: Texts


def carry_context(run: Run) -> None:
    run.phase("setup")
    language = senses(run.data("language", "world"), words=WORDS, topics=TOPICS)
    count, pieces = run.pick(smoke=(4, 6), quick=(64, 24), full=(64, 60))
    held_out = SEGMENT * pieces + 1
    length = SEGMENT * (steps_of(run) * run.times + 2) + 1
    with_memory = Reading(keep=KEPT, later=KEPT)

    def changed_by(change: Callable[[TransformerXL], None]) -> Reading:
        return with_memory._replace(make=partial(transformer_xl, change))

    changed = {
        OTHERS: with_memory._replace(mixed=True),
        UNLEARNED: Reading(later=KEPT),
        COUNTS: Reading(counts=True),
        CARRIED: with_memory._replace(make=lambda: Carried(WORDS, MODEL, layers=2)),
        NO_DISTANCES: changed_by(attend_by(partial(Biased, learned=False))),
        BIAS: changed_by(attend_by(partial(Biased, learned=True))),
    }
    table = run.compare(
        MEMORY,
        POSITIONS,
        arms={
            "with memory": Arm(with_memory),
            "without memory": Arm(Reading()),
            "absolute positions": Arm(changed_by(number_places)),
        },
        yardsticks={"longer segments": Arm(Reading(tokens=LONGER))},
        attempt=train,
        read=judge,
        grid=run.pick(smoke=RATES[1:2], quick=RATES, full=RATES),
        score="validation nats",
        derive=half_of_the_gap,
        breaks={one.name: {"with memory": Arm(reading)} for one, reading in changed.items()},
        world=World(
            language,
            stream(
                language, run.pick(smoke=6, quick=24, full=24), length, run.data("texts to train on", "train")
            ),
            stream(language, count // 2, held_out, run.data("texts to choose by", "choose")),
            stream(language, 2 * count, held_out, run.data("texts to judge by", "judge")),
        ),
    )
    known = nats_of_the_law(language, table.world.judged)[LONGER:].mean().item()
    for position in (1, LONGER):
        run.metric("loss over position in the segment", known, step=position, arm="ideal predictor")
    run.headline("loss over position in the segment")


def steps_of(run: Run) -> int:
    return run.pick(smoke=2, quick=STEPS, full=2000)


def train(at: Trial, reading: Reading, rate: float) -> tuple[float, Outcome]:
    """Train on the texts in a single pass, all in parallel.

    With longer segments there are fewer texts, so all arms have the same number of tokens per step. Return
    the validation loss and the network.
    """
    run, world = at.run, at.world
    net = reading.make().to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    texts = torch.cat(world.seen[:, :-1].chunk(reading.tokens // SEGMENT, 0), 1)
    pieces, steps = list(segments(texts, reading.tokens)), at.length(steps_of(run))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1, pct_start=0.1)
    memory: list[Tensor] = []
    run.phase("train")
    for step in at.steps(steps, f"{at.name}, rate {rate:g}", state=(net, optimizer, schedule, memory)):
        nats, kept = net.loss(pieces[step].to(run.device), given(reading, memory), keep=reading.keep)
        memory[:] = kept
        at.descend(nats.mean(), optimizer, step=step, metric=f"loss at rate {rate:g}", clip=1.0)
        schedule.step()
    run.phase("evaluate")
    shares = SHARES if reading.counts else (0.0,)
    found = [Outcome(net, reading, share) for share in shares]
    scores = [evaluate(run, one, world.chosen, reading.later).mean().item() for one in found]
    best = scores.index(min(scores))
    return scores[best], found[best]


def given(reading: Reading, memory: list[Tensor]) -> list[Tensor]:
    """The memory, or the memory of the next text."""
    return [layer.roll(1, 0) for layer in memory] if reading.mixed else memory


def judge(at: Trial, found: Sweep[Outcome]) -> dict[str, Float[Tensor, " texts"]]:
    """Losses of every test text."""
    run, outcome = at.run, found.chosen
    later = outcome.reading.later
    kept = run.pick(smoke=(KEPT, 4 * KEPT), quick=KEPT_LATER, full=KEPT_LATER) if later else (0,)
    by_memory = {keep: evaluate(run, outcome, at.world.judged, keep) for keep in kept}
    nats = by_memory[later]
    for position, paid in enumerate(nats.mean(0).tolist()):
        at.metric("loss over position in the segment", paid, step=position + 1)
    at.metric("held-out nats per word", nats.mean().item())
    for keep, found_nats in by_memory.items() if later else ():
        at.metric("nats per word over memory length", found_nats.mean().item(), step=keep)
    quarter = nats.shape[1] // 4
    return {
        "nats per word": nats.mean(1),
        "nats per word, segment start - segment end": nats[:, :quarter].mean(1) - nats[:, -quarter:].mean(1),
        "nats per word, long memory": by_memory[4 * later].mean(1),
    }


def half_of_the_gap(table: Table) -> dict[str, dict[str, float]]:
    if "longer segments" not in table.rows:  # a null run of the other claim
        return {}
    ours, short, long = (
        float(table[arm, "nats per word"]) for arm in ("with memory", "without memory", "longer segments")
    )
    return {"": {HALF: short - ours - (short - long) / 2}}


def segments(ids: Texts, tokens: int) -> Iterator[Int[Tensor, "count one_more"]]:
    """Segments, each with its next word, so every word except the first is predicted once."""
    for first in range(0, ids.shape[1] - tokens, tokens):
        yield ids[:, first : first + tokens + 1]


@torch.no_grad()
def evaluate(run: Run, outcome: Outcome, ids: Texts, keep: int) -> Float[Tensor, "texts tokens"]:
    """Loss by position in the segment in nats, without the first `LONGER` words, which have no memory yet."""
    net, reading, share = outcome
    memory: list[Tensor] = []
    found = []
    for piece in segments(ids, reading.tokens):
        nats, memory = net.loss(piece.to(run.device), given(reading, memory), keep=keep)
        found.append(nats.double().cpu())
    nats = torch.cat(found, 1)
    if share:
        nats = -((1 - share) * (-nats).exp() + share * counted(ids, reading.tokens)[:, : nats.shape[1]]).log()
    return nats[:, LONGER:].unflatten(1, (-1, reading.tokens)).mean(1)


def counted(ids: Texts, tokens: int) -> Float[Tensor, "texts length"]:
    """Each next word's probability in a unigram cache that starts `KEPT` words before the segment."""
    before = torch.cat((torch.zeros(len(ids), 1, WORDS), F.one_hot(ids, WORDS).cumsum(1)), 1)
    place = torch.arange(ids.shape[1] - 1)
    first = (place // tokens * tokens - KEPT).clamp(min=0)
    counts = before[:, place + 1] - before[:, first]
    return (counts / counts.sum(2, keepdim=True)).gather(2, ids[:, 1:, None])[..., 0].double()
