"""The claims: which integers are one token, and whether sums are computed or memorised."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from readtrack import data
from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from ..byte_bpe import ByteBPE
from ..gpt2 import GPT2
from ..gpt2.weights import read_merges
from .cutting import cut, merges_of_numbers, released_file

COUNT = Claim(
    name="all integers up to 520 are one token",
    sentence="In GPT-2's vocabulary every integer below 521 has a token of its own, and 521 has none.",
    paper=Figure(
        "every integer up until 521, and 916 of the first 10,000; 907 by our count", read="secondary"
    ),
    rule=(Bound("first integer without a token", "==", 521),),
    control="GPT-2's released merges, where this machine has them (`--set merges=PATH` names the file)",
    control_reaches=(Bound("the merges are GPT-2's", "==", 1),),
    kind="identity",
)

SCRAMBLED = Break(
    "digits without meaning", "Each number is written with the digits of another, which is drawn once."
)

COMPUTES = Claim(
    name="digits let it compute",
    sentence="In as many steps a model gets more unseen sums right where numbers are written in "
    "digits than where merges have made them tokens.",
    paper=Figure(
        "argued in words: every sum of numbers that are tokens is a special case to be memorised; no figure",
        read="secondary",
    ),
    rule=(Bound("held-out sums right, digits - merges", ">=", 0.3, direction=0.0),),
    control="the same model over the tokens that merges make of the same numbers, in as many steps; each at "
    "the best of the same rates",
    control_reaches=(Bound("seen sums right, merges", ">=", 0.15),),
    breaks=(SCRAMBLED,),
    chosen_on=(0,),
    deviations="The post trains nothing. Sums of two numbers from 10 to 59, half of them to train on; the "
    "merges are learned from the numbers of Python's source code, and make one token of each of these "
    "numbers, as GPT-2's do.",
)

LOW, HIGH = 10, 60
MERGES, STEPS, LENGTH = 600, 180, 16
PLUS, EQUALS, END = range(3)
FIRST_TOKEN = 3
IGNORED = -100  # what `cross_entropy` leaves out

Writing = Callable[[int], list[int]]  # a number's ids, from FIRST_TOKEN on


@hookimpl
def experiment(run: Run) -> None:
    run.phase("setup")
    text = data.code()[: run.pick(smoke=200_000, quick=8_000_000, full=None)]
    learned = ByteBPE(merges_of_numbers(text, run.pick(smoke=50, quick=MERGES, full=MERGES)))
    file = released_file(run.option("merges", ""))
    if run.wants(COUNT):
        released = None if file is None else read_merges(file)
        look(run, learned if released is None else released, known=released is not None)
    if run.wants(COMPUTES):
        compare(run, learned)


def look(run: Run, bpe: ByteBPE, *, known: bool) -> None:
    """The post's picture: which integers are one token. `known` says that the merges are GPT-2's."""
    count = run.pick(smoke=1000, quick=10_000, full=10_000)
    pieces = [cut(bpe, integer) for integer in range(count)]
    alone = torch.tensor([len(some) == 1 for some in pieces])
    first = int((~alone).int().argmax())
    run.metric("integers below 10,000 with a token of their own", int(alone.sum()))
    for hundred, share in enumerate(alone.view(-1, 100).double().mean(1).tolist()):
        run.metric("share of a hundred that are one token", share, step=100 * hundred)
    run.axes("share of a hundred that are one token", x="integer", y="share")
    source = (
        "GPT-2's released merges" if known else f"{len(bpe.ranks)} merges of the numbers in Python's code"
    )
    yellow, blue = torch.tensor([0.98, 0.9, 0.2]), torch.tensor([0.2, 0.1, 0.4])
    picture = torch.where(alone.view(-1, 100, 1), yellow, blue).permute(2, 0, 1)
    caption = f"A row is a hundred integers, from 0 on; yellow are one token. By {source}."
    larger = picture.repeat_interleave(4, 1).repeat_interleave(4, 2)
    run.image("integers that are one token", larger, caption=caption)
    shown = [
        n for n in (7, 42, 99, 100, 314, 521, 999, 1000, 1234, 1989, 2019, 4096, 7777, 9876) if n < count
    ]
    lines = [f"{n:>6}  {'|'.join(pieces[n])}" for n in shown]
    run.text("how integers are cut", "\n".join([f"By {source}.", "", *lines]), caption="Bars part tokens.")
    values = {"first integer without a token": first, "the merges are GPT-2's": int(known)}
    run.claim(COUNT, values)


def compare(run: Run, bpe: ByteBPE) -> None:
    order = torch.randperm(2 * HIGH, generator=run.generator("which digits")).tolist()

    def digits(number: int) -> list[int]:
        written = order[number] if run.without(SCRAMBLED.name) else number
        return [FIRST_TOKEN + int(digit) for digit in str(written)]

    used = sorted({i for number in range(2 * HIGH) for i in bpe.encode(str(number))})
    place = {i: FIRST_TOKEN + index for index, i in enumerate(used)}  # tokens of other numbers are left out

    def merged(number: int) -> list[int]:
        return [place[i] for i in bpe.encode(str(number))]

    arms = run.arms({"digits": digits, "merges": merged}, control="merges")
    numbers = torch.arange(LOW, HIGH)
    pairs = torch.cartesian_prod(numbers, numbers)
    seen, choose, judge = (part for (part,) in data.parts(pairs, seed=run.seed, choose=0.2, judge=0.3))
    rates = run.pick(smoke=(1e-2,), quick=(5e-3, 1.3e-2, 3.5e-2), full=(2e-3, 5e-3, 1.3e-2, 3.5e-2))
    best: dict[str, Best[GPT2]] = {}
    right: dict[str, float] = {}
    known: dict[str, float] = {}
    for arm, write in arms.items():
        sums = {name: spelled(part, write) for name, part in (("seen", seen), ("choose", choose))}
        attempt = partial(train, run, arm, 1 + max(map(max, map(write, range(LOW, 2 * HIGH)))), sums)
        best[arm] = run.sweep(arm, rates, attempt, score="validation nats")
        right[arm] = share_right(best[arm].result, spelled(judge, write))
        known[arm] = share_right(best[arm].result, sums["seen"])
        run.metric("sums right", right[arm], arm=f"{arm}, held out")
        run.metric("sums right", known[arm], arm=f"{arm}, seen")
    run.headline("held-out sums right over steps")
    show(run, {arm: (best[arm].result, write) for arm, write in arms.items()}, judge)
    values = {
        "held-out sums right, digits - merges": right["digits"] - right["merges"],
        "seen sums right, merges": known["merges"],
    }
    run.claim(COMPUTES, values, tuned=list(best.values()))


Sums = tuple[Int[Tensor, "_ _"], Int[Tensor, "_ _"]]  # what is read, what comes next


def spelled(pairs: Int[Tensor, "sums 2"], write: Writing) -> Sums:
    """ "a + b = c" as ids, and what is to be predicted: the answer and its end alone."""
    rows = [([*write(a), PLUS, *write(b), EQUALS], [*write(a + b), END]) for a, b in pairs.tolist()]
    length = max(len(question) + len(answer) for question, answer in rows)
    ids = torch.full((len(rows), length), END)
    target = torch.full((len(rows), length), IGNORED)
    for row, (question, answer) in enumerate(rows):
        whole = len(question) + len(answer)
        ids[row, :whole] = torch.tensor(question + answer)
        target[row, len(question) : whole] = torch.tensor(answer)
    return ids[:, :-1], target[:, 1:]


def nats(network: GPT2, ids: Tensor, target: Tensor) -> Float[Tensor, ""]:
    """Mean nats a token of the answers."""
    return F.cross_entropy(network(ids).flatten(0, 1), target.flatten(), ignore_index=IGNORED)


def train(run: Run, arm: str, vocab: int, sums: dict[str, Sums], rate: float) -> tuple[float, GPT2]:
    steps = run.pick(smoke=2, quick=STEPS, full=4000)
    torch.manual_seed(run.seed)
    network = GPT2(vocab, context=LENGTH, model=32, heads=4, layers=2, std=0.1).to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1, pct_start=0.1)
    ids, target = (part.to(run.device) for part in sums["seen"])
    rows = run.generator("rows to train on")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        taken = torch.randint(len(ids), (64,), generator=rows).to(run.device)
        loss = nats(network, ids[taken], target[taken])
        run.descend(loss, optimizer, step=step, arm=f"{arm}, rate {rate:g}", clip=1.0)
        schedule.step()
        if step % 50 == 49 or step == steps - 1:
            score = share_right(network, sums["choose"])
            run.metric("held-out sums right over steps", score, step=step + 1, arm=f"{arm}, rate {rate:g}")
    run.phase("evaluate")
    with torch.no_grad():
        return nats(network, *(part.to(run.device) for part in sums["choose"])).item(), network


@torch.no_grad()
def share_right(network: GPT2, sums: Sums) -> float:
    """Answers whose every token is the likeliest, given the right ones before it: then all are written so."""
    ids, target = (part.to(network.tokens.weight.device) for part in sums)
    return ((network(ids).argmax(-1) == target) | (target == IGNORED)).all(1).double().mean().item()


@torch.no_grad()
def show(run: Run, arms: dict[str, tuple[GPT2, Writing]], pairs: Int[Tensor, "sums 2"]) -> None:
    """The same held-out sums, and what each arm writes for them."""
    rows = []
    for arm, (network, write) in arms.items():
        known = {tuple(write(number)): str(number) for number in range(2 * HIGH)}
        for a, b in pairs[:8].tolist():
            question = torch.tensor([[*write(a), PLUS, *write(b), EQUALS]], device=run.device)
            written = network.generate(question, 4, run.generator("unused"), temperature=0.0)
            answer = written[0, question.shape[1] :].tolist()
            ended = answer[: answer.index(END)] if END in answer else answer
            rows.append((arm, f"{a} + {b}", a + b, known.get(tuple(ended), "no number")))
    run.table("held-out sums", ("writing", "sum", "right", "written"), rows)
