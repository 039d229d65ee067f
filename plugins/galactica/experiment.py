"""Checks the parameter counts, and trains models to add chains of digits with and without written work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import (
    UNTRAINED,
    Arm,
    Bound,
    Break,
    Claim,
    Figure,
    Run,
    Sweep,
    Table,
    Trial,
    at_least,
    hookimpl,
)

from .model import SIZES, Galactica

SIZE = Claim(
    name="parameter counts of the five models",
    sentence="Without biases in its linear layers, each of the five models has the number of parameters in "
    "its name.",
    paper=Figure(
        "125M, 1.3B, 6.7B, 30.0B and 120.0B parameters, no biases",
        where="sections 4.1 and 4.2, table 5",
        read="table",
    ),
    rule=(
        Bound("parameters, 125M", "==", 124_945_920),
        Bound("billions of parameters, 1.3B", "==", 1.3),
        Bound("billions of parameters, 6.7B", "==", 6.7),
        Bound("billions of parameters, 30B", "==", 30.0),
        Bound("billions of parameters, 120B", "==", 121.3),
    ),
    kind="identity",
    deviations="The released files have two more position embeddings, which are not used. With the table's "
    "hidden size and number of layers, the largest model has 121.3 billion parameters, not the table's "
    "120.0.",
)

STEPS = 288

AT_RANDOM = Break(
    "random digits as work",
    "The text between the work tokens consists of random digits.",
    "near miss",
)
RECURRENT = Break(
    "GRU trained on the sums",
    "A recurrent network of about the same size answers immediately, after the same number of training "
    "steps. In training, the running sum is also a target at each digit of the question.",
    "rival",
)

WORK = Claim(
    name="accuracy on chained additions with and without written work",
    sentence=(
        "After 288 training steps, a model that writes the intermediate sums of a chain of six digits "
        "answers more accurately than a model that answers immediately, and than a model that answers after "
        "the same number of empty tokens."
    ),
    paper=Figure(
        "Accuracy on MMLU mathematics without and with <work>: 35.8 and 41.3 at 120B, 29.9 and 37.1 at 30B. "
        "With <work> the accuracy is lower at 6.7B (29.2 and 28.0) and at 1.3B (27.1 and 24.6)",
        where="section 5.2.3, table 8",
        read="table",
    ),
    rule=(
        at_least("accuracy", "work", 0.3, minus="at once", toward=0.05),
        at_least("accuracy", "work", 0.3, minus="empty tokens", toward=0.05),
    ),
    control="the same model trained on the same chains to answer immediately. Each model uses its best "
    "learning rate from the same grid",
    control_arm="at once",
    control_reaches=(at_least("accuracy on two digits", "at once", 0.95),),
    after_steps=STEPS,
    breaks=(AT_RANDOM, RECURRENT, UNTRAINED),
    shortcuts=("accuracy gain from empty tokens",),
    chosen_on=(0, 1, 2),
    headline=True,
    deviations=(
        "The task is to add up to 6 digits modulo 5. The test uses chains of 6 digits that do not occur in "
        "training. The model has two layers of hidden size 48. It is trained with AdamW on these chains "
        "only. A text with an immediate answer has about half as many digits as a text with work. Layer "
        "normalisations have biases, as in the released files, but section 4.1 says that there are none. "
        "The paper also compares Galactica with larger models on LaTeX equations and on MATH, and finds "
        "that a corpus can be repeated for several epochs. We test neither."
    ),
    history=(
        (
            'Until November 2026 the verdict was "inconclusive" (7 of 10 seeds, same bounds), and 16 % of '
            "the test chains occurred in training. The test chains are now held out, and the sentence "
            "states the number of steps."
        ),
        (
            "The rival, a GRU, is now also trained on the running sums, which the model with work sees in "
            "training, too. With seed 7101 and a learning rate of 0.005, the GRU's accuracy is 1.00 with "
            "these targets and 0.32 without them."
        ),
    ),
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
        with torch.device("meta"):  # shapes only: nothing is stored
            counts[name] = sum(weight.numel() for weight in Galactica(**size).parameters())
    values = {f"billions of parameters, {name}": round(count / 1e9, 1) for name, count in counts.items()}
    run.claim(SIZE, {"parameters, 125M": counts["125M"], **values})


def chains(
    terms: int, count: int, generator: torch.Generator, *, new: bool = False
) -> tuple[Int[Tensor, "count question"], Int[Tensor, "count terms"]]:
    """Questions of `terms` digits, padded to the longest, and the running sums modulo 5.

    new  sample held-out chains of the longest length. One chain in five is held out: those whose digits,
         weighted by 1, 2, ..., 6, add up to 0 modulo 5
    """
    digits = torch.randint(MODULUS, (count, terms), generator=generator)
    if terms == LONGEST:
        wanted = torch.randint(1, MODULUS, (count,), generator=generator) * (not new)
        found = (digits * torch.arange(1, LONGEST + 1)).sum(1)
        digits[:, -1] = (
            digits[:, -1] + wanted - found
        ) % MODULUS  # the last weight is 6, which is 1 modulo 5
    question = F.pad(digits, (0, LONGEST - terms), value=PAD)
    return question, digits.cumsum(1) % MODULUS


Steps = Callable[[Int[Tensor, "count terms"], torch.Generator], Int[Tensor, "count steps"]]


def decoder() -> Galactica:
    return Galactica(VOCAB, context=2 * LONGEST + 3, model=48, heads=4, layers=2, std=0.08)


@dataclass(frozen=True)
class Way:
    """How an arm answers a question.

    steps    maps the running sums to the tokens between <work> and </work>
    written  whether the model generates these tokens; otherwise they are given
    along    whether the running sums are also targets in training, each at its digit of the question
    make     returns the network
    """

    steps: Steps
    written: bool
    along: bool = False
    make: Callable[[], nn.Module] = decoder


class Recurrent(nn.Module):
    """A GRU in place of the decoder."""

    def __init__(self, hidden: int = 96) -> None:
        super().__init__()
        self.embed, self.readout = nn.Embedding(VOCAB, hidden), nn.Linear(hidden, VOCAB)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens vocab"]:
        return self.readout(self.gru(self.embed(ids))[0])

    def generate(
        self, ids: Int[Tensor, "batch tokens"], count: int, *_: object, **settings: float
    ) -> Int[Tensor, "batch longer"]:
        """Greedy decoding, with the interface of `Galactica.generate`."""
        for _ in range(count):
            ids = torch.cat((ids, self(ids)[:, -1:].argmax(-1)), 1)
        return ids


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


class Outcome(NamedTuple):
    network: nn.Module
    way: Way


def add_up(run: Run) -> None:
    at_once = Way(as_nothing, written=False)
    table = run.compare(
        WORK,
        arms={
            "work": Arm(Way(as_sums, written=True)),
            "empty tokens": Arm(Way(as_empty, written=False)),
            "at once": Arm(at_once),
        },
        attempt=train,
        read=judge,
        grid=run.pick(smoke=(2e-3,), quick=RATES, full=(5e-4, *RATES, 1.2e-2)),
        score="validation accuracy",
        keep="highest",
        derive=gained_by_empty_tokens,
        breaks={
            AT_RANDOM.name: {"work": Arm(Way(at_random, written=True))},
            RECURRENT.name: {"work": Arm(Way(as_nothing, written=False, along=True, make=Recurrent))},
        },
    )
    run.headline("accuracy over number of digits")
    show(run, *table.sweeps["work"].chosen)


def gained_by_empty_tokens(table: Table) -> dict[str, dict[str, float]]:
    empty, once = (float(table[arm, "accuracy"]) for arm in ("empty tokens", "at once"))
    return {"": {"accuracy gain from empty tokens": empty - once}}


def train(at: Trial, way: Way, rate: float) -> tuple[float, Outcome]:
    """Trains with a loss on the tokens that the model must generate: steps, end of the work, and answer."""
    run = at.run
    steps = at.length(run.pick(smoke=3, quick=STEPS, full=2000))
    network = way.make().to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    drawn, written, label = at.generator("chains"), at.generator("steps"), f"{at.name}, rate {rate:g}"
    run.phase("train")
    for step in at.steps(steps, label, state=(network, optimizer, schedule)):
        question, sums = chains(LONGEST - step % LONGEST, 64, drawn)
        text = text_of(question, way.steps(sums, written), sums[:, -1:]).to(run.device)
        first = LONGEST + 1 if way.written else text.shape[1] - 1  # first token that must be generated
        logits = network(text[:, :-1])
        loss = F.cross_entropy(logits[:, first - 1 :].flatten(0, 1), text[:, first:].flatten())
        if way.along:
            loss = loss + F.cross_entropy(
                logits[:, : sums.shape[1]].flatten(0, 1), sums.flatten().to(run.device)
            )
        at.descend(loss, optimizer, step=step, arm=label, clip=1.0)
        schedule.step()
    outcome = Outcome(network, way)
    scores = [right(run, outcome, terms, "choose").mean().item() for terms in (2, 4, LONGEST)]
    return sum(scores) / len(scores), outcome


def judge(at: Trial, found: Sweep[Outcome]) -> dict[str, Float[Tensor, " chains"]]:
    by_terms = [right(at.run, found.chosen, terms, "judge") for terms in range(1, LONGEST + 1)]
    for terms, correct in enumerate(by_terms, 1):
        at.metric("accuracy over number of digits", correct.mean().item(), step=terms)
    return {"accuracy": by_terms[-1], "accuracy on two digits": by_terms[1]}


def right(
    run: Run, outcome: Outcome, terms: int, part: Literal["choose", "judge"]
) -> Float[Tensor, " chains"]:
    """1.0 for each chain whose last token, the answer, is correct, else 0. Work is decoded greedily."""
    run.phase("evaluate")
    generator = run.data(f"chains of {terms} to {part} by", part)
    question, sums = chains(terms, run.pick(smoke=16, quick=200, full=2000), generator, new=True)
    found = answer(*outcome, question.to(run.device), sums.to(run.device), generator)
    return (found[:, -1].cpu() == sums[:, -1]).double()


@torch.no_grad()
def answer(
    network: nn.Module, way: Way, question: Tensor, sums: Tensor, generator: torch.Generator
) -> Int[Tensor, "count tokens"]:
    """Returns the text with the model's answer. If the model writes the work, the prompt ends before it."""
    steps = way.steps(sums.cpu(), generator).to(question.device)
    text = text_of(question, steps, sums[:, -1:])
    given = LONGEST + 1 if way.written else text.shape[1] - 1
    return network.generate(text[:, :given], text.shape[1] - given, generator, temperature=0.0)


def show(run: Run, network: nn.Module, way: Way) -> None:
    """Saves some questions with the model's full output."""
    generator = run.data("chains to show", "judge")
    names = {PAD: "", START: " <work> ", EMPTY: "·", END: " </work> "}
    lines = []
    for terms in (2, 4, LONGEST, LONGEST):
        question, sums = chains(terms, 1, generator)
        text = answer(network, way, question.to(run.device), sums.to(run.device), generator)[0].tolist()
        asked = " + ".join(str(token) for token in text[:terms])
        written = "".join(names.get(token, f"{token} ") for token in text[LONGEST:])
        lines.append(f"{asked} = ? {written}   (correct: {sums[0, -1].item()})")
    run.text(
        "generated work",
        "\n".join(lines),
        caption="The work consists of running sums modulo 5. The answer comes last.",
    )
