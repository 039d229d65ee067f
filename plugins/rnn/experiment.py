"""Elman's letters; the gradient over lags, against the largest singular value; the adding problem."""

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl
from readtrack.runs.on_text import bits_per_character

from .model import RNN, IdentityRNN
from .tasks import LENGTH, Characters, adding_error, gradient_over_lags, learn_to_add

STRUCTURE = Claim(
    name="finding structure",
    sentence="Asked only to predict the next letter, the network finds the words: it knows the vowels from "
    "their consonant, and that a consonant comes next, though not which.",
    paper=Figure(
        "Plots of the error over ba, dii and guuu: low on vowels, high on consonants, yet low on the bit "
        "that all consonants share.",
        where="figures 4 and 5",
        read="text",
    ),
    rule=(
        Bound("surprise at vowels", "<=", 0.1, direction=0.2),
        Bound("surprise at consonants beyond ln 3", "<=", 0.15, direction=0.4),
        Bound("surprise at vowels, without memory / with", ">=", 3.0, direction=1.0, ratio=True),
    ),
    guards=(Bound("surprise at consonants beyond ln 3", ">=", -0.02),),
    control="the same network, whose state is emptied before every letter",
    control_reaches=(Bound("surprise at vowels, without memory", "<=", 0.35),),
    breaks=(
        Break("no memory", "The state is emptied before every letter."),
        Break("no words", "The texts that the network with memory learns from have their letters shuffled."),
    ),
    chosen_on=(0, 1, 2),
    deviations="Letters are one-hot, not six phonetic features; cross-entropy (nats), Adam, and the gradient "
    "through 60 steps instead of one; 20 hidden units as in the paper. No prediction of a consonant can be "
    "right more often than one time in three: ln 3. What one letter tells: 0.25 nats are left at vowels, and "
    "0.60 beyond ln 3 at consonants.",
)

VANISHING = Claim(
    name="bound on the gradient",
    sentence="Over each step back the gradient grows at most by the largest singular value of the recurrent "
    "weights: below 1 it vanishes exponentially.",
    paper=Figure("A largest singular value under 1 is sufficient.", where="section 2.1", read="secondary"),
    rule=(
        Bound("largest excess of the slope over log10 of the singular value", "<=", 1e-9),
        Bound("log10 of growth over 100 steps, orthogonal, singular values 0.9", "<=", -4.5),
    ),
    kind="theorem",
    deviations="Untrained networks of 64 units in float64, inputs of weak Gaussian noise into each unit.",
)

EXPLODING = Claim(
    name="vanishing and exploding",
    sentence="Above 1 the gradient can explode, exponentially, but need not: a matrix with the same largest "
    "singular value lets it vanish.",
    paper=Figure(
        "A largest singular value above 1 is necessary, not sufficient.",
        where="section 2.1",
        read="secondary",
    ),
    rule=(
        Bound("log10 of growth over 100 steps, orthogonal, singular values 2", ">=", 3.0, direction=0.0),
        Bound("straightness of that growth (R²)", ">=", 0.95),
        Bound(
            "log10 of growth over 100 steps, random, largest singular value 1.5", "<=", -3.0, direction=0.0
        ),
    ),
    kind="theorem",
    guards=(Bound("straightness of the decay, random (R²)", ">=", 0.95),),
    deviations="Untrained networks of 64 units in float64, inputs of weak Gaussian noise into each unit.",
    history=(
        (
            "Until November 2026 this claim was counted as measured. Nothing is trained in it, and weights "
            "of these sizes leave no other outcome."
        ),
    ),
)

LONG_LAGS = Claim(
    name="long lags",
    sentence="What lies many steps back is not learned, though in sequences as long a few steps back it is.",
    paper=Figure(
        "No recurrent network before the LSTM solved the adding problem with a minimal lag of 50.",
        where="Hochreiter and Schmidhuber 1997, section 5.4",
        read="text",
    ),
    rule=(Bound("error at its best rate, marks anywhere in fifty steps", ">=", 0.14, direction=0.1),),
    control="the same network, training and length, where the marks lie among the last five steps; to answer "
    "1 always is an error of 0.167",
    control_reaches=(Bound("error at its best rate, marks in the last five", "<=", 0.03),),
    breaks=(Break("near marks", "The marks lie among the last five steps in both arms."),),
    chosen_on=(0, 1, 2),
    deviations="Values in [0, 1], marks in either half: lags of 37 and 12 on average; Adam with a rate "
    "that falls to nothing. That an LSTM learns the same task is shown by the paper `lstm`.",
)

LETTER_RATES = (0.01, 0.03, 0.1, 0.3)
ADDING_RATES = (0.005, 0.015, 0.05)


@hookimpl
def experiment(run: Run) -> None:
    if run.option("text", ""):  # --data
        read_text(run)
        return
    run.headline("log10 of gradient over lag")
    if run.wants(STRUCTURE):
        find_structure(run)
    if run.wants(VANISHING, EXPLODING):
        compare_gradients(run)
    if run.wants(LONG_LAGS):
        reach_back(run)


def read_text(run: Run) -> None:
    hidden = run.pick(smoke=8, quick=128, full=512)
    layers = {"RNN": RNN, "rectified units that start at the identity": IdentityRNN}
    bits_per_character(
        run,
        {arm: partial(Characters, layer, hidden) for arm, layer in layers.items()},
        unjudged=(STRUCTURE, VANISHING, EXPLODING, LONG_LAGS),
        window=run.pick(smoke=16, quick=100, full=200),
        steps=run.option("steps", run.pick(smoke=2, quick=300, full=20_000)),
        rates=run.pick(smoke=(0.002,), quick=(0.0006, 0.002, 0.006), full=(0.0002, 0.0006, 0.002)),
    )


# Elman's letters

ALPHABET, WORDS = "bdgaiu", ("ba", "dii", "guuu")  # consonants first


def elmans_letters(count: int, length: int, generator: torch.Generator) -> Int[Tensor, "count length"]:
    """Sequences of the words in random order, as ids of ALPHABET."""
    rows = []
    for order in torch.randint(len(WORDS), (count, length // 2 + 1), generator=generator).tolist():
        text = "".join(WORDS[word] for word in order)[:length]
        rows.append([ALPHABET.index(letter) for letter in text])
    return torch.tensor(rows)


class NextLetter(nn.Module):
    """Scores of the letter that comes next. Without `memory` the network sees only the present one."""

    def __init__(self, letters: int, hidden: int, *, memory: bool) -> None:
        super().__init__()
        self.letters, self.memory = letters, memory
        self.rnn = RNN(letters, hidden)
        self.readout = nn.Linear(hidden, letters)

    def forward(self, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time letters"]:
        x = F.one_hot(ids, self.letters).to(self.readout.weight.dtype)
        if self.memory:
            states, _ = self.rnn(x)
        else:
            states = self.rnn(x.flatten(0, 1)[:, None])[0].view(*ids.shape, -1)
        return self.readout(states)


def surprises(network: NextLetter, ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch later"]:
    """Nats at each letter, from the sixth on: by then the first word, which may be any, is over."""
    logits = network(ids[:, :-1]).flatten(0, 1)
    return F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)[:, 4:]


def find_structure(run: Run) -> None:
    def texts(name: str, count: int) -> Int[Tensor, "count length"]:
        return elmans_letters(count, 61, run.generator(f"texts to {name}")).to(run.device)

    count = run.pick(smoke=4, quick=64, full=256)
    words, choose, judge = texts("train on", 32), texts("choose by", count), texts("judge by", count)
    order = torch.rand(words.shape, generator=run.generator("shuffled")).argsort(1).to(run.device)

    def learn(arm: str, memory: bool, rate: float) -> tuple[float, NextLetter]:
        train = words.gather(1, order) if run.without("no words") and memory else words
        torch.manual_seed(run.seed)
        network = NextLetter(len(ALPHABET), 20, memory=memory).to(run.device, run.dtype)
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        name = f"{arm}, rate {rate:g}"
        run.phase("train")
        for step in run.steps(run.pick(smoke=2, quick=250, full=1000), f"letters, {name}"):
            loss = F.cross_entropy(network(train[:, :-1]).flatten(0, 1), train[:, 1:].flatten())
            run.descend(loss, optimizer, step=step, metric="surprise while learning", arm=name)
        run.phase("evaluate")
        with torch.no_grad():
            return surprises(network, choose).mean().item(), network

    arms = run.arms(
        {"with memory": not run.without("no memory"), "without memory": False}, control="without memory"
    )
    vowel = judge[:, 5:] >= ALPHABET.index("a")
    best, at_vowels, at_consonants = {}, {}, {}
    for arm, memory in arms.items():
        best[arm] = run.sweep(arm, LETTER_RATES, partial(learn, arm, memory), score="surprise")
        with torch.no_grad():
            nats = surprises(best[arm].result, judge)
        at_vowels[arm], at_consonants[arm] = nats[vowel].mean().item(), nats[~vowel].mean().item()
        run.metric("surprise at vowels", at_vowels[arm], arm=arm)
        run.metric("surprise at consonants", at_consonants[arm], arm=arm)
        if arm == "with memory":
            letters = [ALPHABET[i] for i in judge[0, 5:29].tolist()]
            rows = [(letter, round(n, 3)) for letter, n in zip(letters, nats[0, :24].tolist(), strict=True)]
            run.table("letters", ("letter", "surprise (nats)"), rows, caption="Elman's figure 4, as numbers.")
    values = {
        "surprise at vowels": at_vowels["with memory"],
        "surprise at consonants beyond ln 3": at_consonants["with memory"] - math.log(3),
        "surprise at vowels, without memory / with": at_vowels["without memory"] / at_vowels["with memory"],
        "surprise at vowels, without memory": at_vowels["without memory"],
    }
    run.claim(STRUCTURE, values, tuned=list(best.values()))


# The gradient over lags

HIDDEN, LAGS = 64, 100
SINGULAR_VALUES = (0.5, 0.7, 0.9, 1.0, 1.5, 2.0, 4.0)


class Decay(NamedTuple):
    """log10 of the gradient over the lags: from the first to the last, and how straight it is (R²)."""

    growth: float
    straightness: float


def recurrent_weights(
    kind: str, largest: float, generator: torch.Generator
) -> Float[Tensor, "hidden hidden"]:
    """A random matrix with this largest singular value; where it is orthogonal, all others are the same."""
    weight = torch.randn(HIDDEN, HIDDEN, generator=generator, dtype=torch.float64)
    if kind == "orthogonal":
        weight = torch.linalg.qr(weight)[0]
    return weight * largest / torch.linalg.matrix_norm(weight, 2)


def measure_decay(run: Run, kind: str, largest: float) -> Decay:
    rnn = RNN(HIDDEN, HIDDEN).double()  # on the CPU: what vanishes would underflow in less
    with torch.no_grad():
        # An input into each unit: the gradient at the inputs is that at the units' sums, up to a constant.
        rnn.input.weight.copy_(0.1 * torch.eye(HIDDEN))
        rnn.recurrent.weight.copy_(recurrent_weights(kind, largest, run.generator(f"{kind} weights")))
    x = torch.randn(8, LAGS + 1, HIDDEN, generator=run.generator("noise"), dtype=torch.float64)
    log = gradient_over_lags(rnn, x, run.generator("projection")).log10()
    for lag in range(0, LAGS + 1, 5):
        run.metric("log10 of gradient over lag", log[lag].item(), step=lag, arm=f"{kind}, {largest:g}")
    lags = torch.arange(LAGS + 1, dtype=torch.float64)
    straightness = torch.corrcoef(torch.stack((lags, log)))[0, 1].item() ** 2
    return Decay((log[-1] - log[0]).item(), straightness)


def compare_gradients(run: Run) -> None:
    torch.manual_seed(run.seed)
    decays, excess = {}, []
    for largest in SINGULAR_VALUES:
        slopes = {"its log10, the bound": math.log10(largest)}
        for kind in ("orthogonal", "random"):
            decays[kind, largest] = measure_decay(run, kind, largest)
            slopes[kind] = decays[kind, largest].growth / LAGS
            excess.append(slopes[kind] - math.log10(largest))
        for arm, slope in slopes.items():
            run.metric("slope over largest singular value", slope, step=largest, arm=arm)
    exploding, vanishing = decays["orthogonal", 2.0], decays["random", 1.5]
    run.metric("log10 of growth over 100 steps", exploding.growth, arm="orthogonal, 2")
    run.metric("log10 of growth over 100 steps", vanishing.growth, arm="random, 1.5")
    if run.wants(VANISHING):
        below = decays["orthogonal", 0.9]
        values = {
            "largest excess of the slope over log10 of the singular value": max(excess),
            "log10 of growth over 100 steps, orthogonal, singular values 0.9": below.growth,
        }
        run.claim(VANISHING, values)
    if run.wants(EXPLODING):
        values = {
            "log10 of growth over 100 steps, orthogonal, singular values 2": exploding.growth,
            "straightness of that growth (R²)": exploding.straightness,
            "log10 of growth over 100 steps, random, largest singular value 1.5": vanishing.growth,
            "straightness of the decay, random (R²)": vanishing.straightness,
        }
        run.claim(EXPLODING, values)


# The adding problem


def reach_back(run: Run) -> None:
    near = 5
    far = near if run.without("near marks") else LENGTH
    arms = run.arms({"marks anywhere": far, "marks in the last five": near}, control="marks in the last five")
    steps = run.pick(smoke=2, quick=600, full=3000)

    def train(arm: str, window: int, rate: float) -> tuple[float, float]:
        torch.manual_seed(run.seed)
        name = f"{arm}, rate {rate:g}"
        network = learn_to_add(run, name, RNN, rate=rate, length=LENGTH, steps=steps, window=window)
        run.phase("evaluate")
        choose, judge = (
            adding_error(run, network, part, length=LENGTH, window=window) for part in ("choose", "judge")
        )
        run.metric("error at adding, new sequences", judge, arm=name)
        return choose, judge

    best = {
        arm: run.sweep(arm, ADDING_RATES, partial(train, arm, window), score="error")
        for arm, window in arms.items()
    }
    values = {
        "error at its best rate, marks anywhere in fifty steps": best["marks anywhere"].result,
        "error at its best rate, marks in the last five": best["marks in the last five"].result,
    }
    run.claim(LONG_LAGS, values, tuned=list(best.values()))
