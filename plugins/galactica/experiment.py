"""The claims: sizes, and chains of additions with and without the work written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import SIZES, Galactica

SIZE = Claim(
    name="the paper's sizes",
    sentence="Without biases of matrices the five models have the parameters that name them.",
    paper=Figure(
        "125M, 1.3B, 6.7B, 30.0B and 120.0B; no biases", where="sections 4.1 and 4.2, table 5", read="table"
    ),
    rule=(
        Bound("parameters, 125M", "==", 124_945_920),
        Bound("billions of parameters, 1.3B", "==", 1.3),
        Bound("billions of parameters, 6.7B", "==", 6.7),
        Bound("billions of parameters, 30B", "==", 30.0),
        Bound("billions of parameters, 120B", "==", 121.3),
    ),
    kind="identity",
    deviations="The released files have two more rows of positions, which nothing reads. Its width and depth "
    "give the largest 121.3 billion, not the 120.0 of the table.",
)

AT_RANDOM = Break("steps at random", "What is written between the work tokens are digits drawn at random.")

WORK = Claim(
    name="the work token",
    sentence="A chain of additions too long for one pass is answered if its steps are written: more often "
    "than at once, and more often than after as many empty tokens.",
    paper=Figure(
        "MMLU maths without and with <work>: 120B 35.8 and 41.3, 30B 29.9 and 37.1; it hurts at 6.7B (29.2, "
        "28.0) and 1.3B (27.1, 24.6)",
        where="section 5.2.3, table 8",
        read="table",
    ),
    rule=(
        Bound("accuracy gained over an answer at once", ">=", 0.3, direction=0.05),
        Bound("accuracy gained over empty tokens", ">=", 0.3, direction=0.05),
    ),
    control="the answer at once; each at the best of the same rates, with the same chains",
    control_reaches=(Bound("accuracy at once, two numbers", ">=", 0.95),),
    breaks=(AT_RANDOM,),
    shortcuts=("accuracy gained by empty tokens over an answer at once",),
    chosen_on=(0, 1, 2),
    deviations="Sums modulo 5 of up to 6 digits, judged at 6; two layers of width 48 trained on these chains "
    "alone, half as many digits as in the text of its work. The norms keep their biases, as in the released "
    "files. That text can be read for several epochs, the paper's first result, is not tried.",
)

LONGEST, MODULUS = 6, 5
PAD, START, EMPTY, END = MODULUS, MODULUS + 1, MODULUS + 2, MODULUS + 3  # START <work>, END </work>
VOCAB = MODULUS + 4
RATES = (1e-3, 2e-3, 5e-3)


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        count_parameters(run)
    if run.wants(WORK):
        add_up(run)


def count_parameters(run: Run) -> None:
    counts = {}
    for name, size in SIZES.items():
        with torch.device("meta"):  # shapes alone: nothing is stored
            counts[name] = sum(weight.numel() for weight in Galactica(**size).parameters())
    values = {f"billions of parameters, {name}": round(count / 1e9, 1) for name, count in counts.items()}
    run.claim(SIZE, {"parameters, 125M": counts["125M"], **values})


def chains(
    terms: int, count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count question"], Int[Tensor, "count terms"]]:
    """Questions of `terms` digits in as many places as the longest has, and the sums modulo 5 after each."""
    digits = torch.randint(MODULUS, (count, terms), generator=generator)
    question = F.pad(digits, (0, LONGEST - terms), value=PAD)
    return question, digits.cumsum(1) % MODULUS


Steps = Callable[[Int[Tensor, "count terms"], torch.Generator], Int[Tensor, "count steps"]]


@dataclass(frozen=True)
class Way:
    """How an arm answers.

    steps    what stands between <work> and </work>, for the sums so far
    written  whether the model writes it itself; else it is given
    """

    steps: Steps
    written: bool


def as_sums(sums: Int[Tensor, "count terms"], generator: torch.Generator) -> Int[Tensor, "count terms"]:
    return sums


def at_random(sums: Int[Tensor, "count terms"], generator: torch.Generator) -> Int[Tensor, "count terms"]:
    return torch.randint(MODULUS, sums.shape, generator=generator)


def as_empty(sums: Int[Tensor, "count terms"], generator: torch.Generator) -> Int[Tensor, "count terms"]:
    return torch.full_like(sums, EMPTY)


def as_nothing(sums: Int[Tensor, "count terms"], generator: torch.Generator) -> Int[Tensor, "count none"]:
    return sums[:, :0]


def text_of(question: Tensor, steps: Tensor, answer: Tensor) -> Int[Tensor, "count tokens"]:
    edge = torch.ones_like(answer)
    return torch.cat((question, START * edge, steps, END * edge, answer), 1)


def add_up(run: Run) -> None:
    written = at_random if run.without(AT_RANDOM.name) else as_sums
    ways = run.arms(
        {
            "work": Way(written, written=True),
            "empty tokens": Way(as_empty, written=False),
            "at once": Way(as_nothing, written=False),
        },
        control="at once",
    )
    rates = run.pick(smoke=(2e-3,), quick=RATES, full=(5e-4, *RATES, 1.2e-2))
    best: dict[str, Best[Galactica]] = {}
    accuracy: dict[str, Sequence[float]] = {}
    for arm, way in ways.items():
        best[arm] = run.sweep(
            arm, rates, partial(train, run, arm, way), score="validation accuracy", keep="highest"
        )
        accuracy[arm] = [
            judge(run, best[arm].result, way, terms, "chains to judge by") for terms in range(1, LONGEST + 1)
        ]
        for terms, right in enumerate(accuracy[arm], 1):
            run.metric("accuracy over numbers added", right, step=terms, arm=arm)
    run.headline("accuracy over numbers added")
    longest = {arm: right[-1] for arm, right in accuracy.items()}
    values = {
        "accuracy gained over an answer at once": longest["work"] - longest["at once"],
        "accuracy gained over empty tokens": longest["work"] - longest["empty tokens"],
        "accuracy at once, two numbers": accuracy["at once"][1],
        "accuracy gained by empty tokens over an answer at once": longest["empty tokens"]
        - longest["at once"],
    }
    run.claim(WORK, values, tuned=list(best.values()))
    show(run, best["work"].result, ways["work"])


def train(run: Run, arm: str, way: Way, rate: float) -> tuple[float, Galactica]:
    """The loss counts what the model must write: its steps, the end of the work, and the answer."""
    steps = run.pick(smoke=3, quick=288, full=2000)
    torch.manual_seed(run.seed)
    network = Galactica(VOCAB, context=2 * LONGEST + 3, model=48, heads=4, layers=2, std=0.08)
    network = network.to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    drawn = run.generator("chains")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        terms = 1 + step % LONGEST
        question, sums = chains(terms, 64, drawn)
        text = text_of(question, way.steps(sums, drawn), sums[:, -1:]).to(run.device)
        first = LONGEST + 1 if way.written else text.shape[1] - 1  # of what must be written
        logits = network(text[:, :-1])[:, first - 1 :]
        loss = F.cross_entropy(logits.flatten(0, 1), text[:, first:].flatten())
        run.descend(loss, optimizer, step=step, arm=f"{arm}, rate {rate:g}", clip=1.0)
        schedule.step()
    scores = [judge(run, network, way, terms, "chains to choose by") for terms in (2, 4, LONGEST)]
    return sum(scores) / len(scores), network


def judge(run: Run, network: Galactica, way: Way, terms: int, stream: str) -> float:
    """The share of new chains whose answer, the last token, is right; an own work is written greedily."""
    run.phase("evaluate")
    generator = run.generator(f"{stream}, {terms}")
    question, sums = chains(terms, run.pick(smoke=16, quick=200, full=2000), generator)
    found = answer(network, way, question.to(run.device), sums.to(run.device), generator)
    return (found[:, -1].cpu() == sums[:, -1]).double().mean().item()


@torch.no_grad()
def answer(
    network: Galactica, way: Way, question: Tensor, sums: Tensor, generator: torch.Generator
) -> Int[Tensor, "count tokens"]:
    """The text with its answer. What is given of it ends before the work that the model writes."""
    steps = way.steps(sums.cpu(), generator).to(question.device)
    text = text_of(question, steps, sums[:, -1:])
    given = LONGEST + 1 if way.written else text.shape[1] - 1
    return network.generate(text[:, :given], text.shape[1] - given, generator, temperature=0.0)


def show(run: Run, network: Galactica, way: Way) -> None:
    """Some chains with all that the model wrote."""
    generator = run.generator("chains to show")
    names = {PAD: "", START: " <work> ", EMPTY: "·", END: " </work> "}
    lines = []
    for terms in (2, 4, LONGEST, LONGEST):
        question, sums = chains(terms, 1, generator)
        text = answer(network, way, question.to(run.device), sums.to(run.device), generator)[0].tolist()
        asked = " + ".join(str(token) for token in text[:terms])
        written = "".join(names.get(token, f"{token} ") for token in text[LONGEST:])
        lines.append(f"{asked} = ? {written}   (right: {sums[0, -1].item()})")
    run.text(
        "work written", "\n".join(lines), caption="Sums modulo 5, after each digit; the answer comes last."
    )
