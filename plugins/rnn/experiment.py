"""Trains on Elman's letters and the adding problem, and compares the gradient at each lag with its bound."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

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
    Trial,
    at_least,
    at_most,
    hookimpl,
)
from readtrack.runs.on_text import bits_per_character

from .letters import ALPHABET, NextLetter, ThreeLetters, elmans_letters, surprises
from .model import RNN, IdentityRNN
from .tasks import AllAtOnce, Characters, Learned, Reader, error_at_adding, gradient_over_lags, reach_back

VOWELS, CONSONANTS = "surprise at vowels", "surprise at consonants beyond ln 3"
NO_MEMORY = Break("no memory", "The state is reset before every letter.")
NO_WORDS = Break(
    "shuffled letters in training", "The network with memory is trained on texts with shuffled letters."
)
LENGTHS = Break(
    "words of random length",
    "The network with memory is trained on words with one to three copies of their vowel.",
    "near miss",
)
THREE_LETTERS = Break(
    "table of three-letter contexts",
    "A table replaces the network. It has scores of the next letter for each sequence of three letters.",
    "rival",
)

STRUCTURE = Claim(
    name="next-letter surprise with and without memory",
    sentence="After 250 steps of next-letter prediction, a recurrent network predicts each vowel from its "
    "consonant, and it predicts when a consonant comes next, but not which one. A network that sees only "
    "the current letter cannot do so.",
    paper=Figure(
        "In plots of the error over ba, dii and guuu, the error is low on vowels and high on consonants, but "
        "low on the bit that all consonants share.",
        where="figures 4 and 5",
        read="text",
    ),
    rule=(
        at_most(VOWELS, "with memory", 0.1, toward=0.2),
        at_most(CONSONANTS, "with memory", 0.15, toward=0.4),
        at_least(VOWELS, "without memory", 3.0, over="with memory", toward=1.0),
    ),
    guards=(at_least(CONSONANTS, "with memory", -0.02),),
    control="the same network with its state reset before every letter",
    control_arm="without memory",
    control_reaches=(at_most(VOWELS, "without memory", 0.35),),
    after_steps=250,
    breaks=(NO_MEMORY, NO_WORDS, LENGTHS, THREE_LETTERS, UNTRAINED),
    chosen_on=(0, 1, 2),
    deviations="Letters are one-hot vectors instead of six phonetic features. Training uses cross-entropy "
    "(nats), Adam, and gradients through 60 steps instead of one. There are 20 hidden units, as in the "
    "paper. Consonants are uniformly random, so their loss cannot be lower than ln 3. A prediction from "
    "one letter has a loss of 0.25 nats at vowels, and 0.60 nats beyond ln 3 at consonants.",
    headline=True,
    history=(
        (
            'Until November 2026 the verdict was "reproduced" (same bounds, no rival). The rival is now a '
            "table over three letters."
        ),
    ),
)

VANISHING = Claim(
    name="bound on the gradient",
    sentence="For each step back in time, the gradient grows at most by a factor equal to the largest "
    "singular value of the recurrent weights. If this value is below 1, the gradient vanishes exponentially.",
    paper=Figure(
        "For tanh units, a largest singular value below 1 is sufficient for gradients to vanish.",
        where="section 2.1",
        read="text",
    ),
    rule=(
        Bound("largest excess of the slope over log10 of the singular value", "<=", 1e-9),
        Bound("log10 of growth over 100 steps, orthogonal, singular values 0.9", "<=", -4.5),
    ),
    kind="theorem",
    deviations="Networks are untrained, in float64, with 64 units and weak Gaussian noise as the input of "
    "each unit.",
)

EXPLODING = Claim(
    name="gradient with singular values above 1",
    sentence="If the largest singular value of the recurrent weights is above 1, the gradient can explode "
    "exponentially. It does not always explode: for another such matrix, it vanishes.",
    paper=Figure(
        "For tanh units, a largest singular value above 1 is necessary for gradients to explode. The paper "
        "does not call it sufficient.",
        where="section 2.1",
        read="text",
    ),
    rule=(
        Bound("log10 of growth over 100 steps, orthogonal, singular values 2", ">=", 3.0, direction=0.0),
        Bound("linearity of that growth (R²)", ">=", 0.95),
        Bound(
            "log10 of growth over 100 steps, random, largest singular value 1.5", "<=", -3.0, direction=0.0
        ),
    ),
    kind="theorem",
    guards=(Bound("straightness of the decay, random (R²)", ">=", 0.95),),
    deviations="Networks are untrained, in float64, with 64 units and weak Gaussian noise as the input of "
    "each unit.",
    history=(
        (
            "Until November 2026 this claim was counted as measured. No network is trained, and weights of "
            "these sizes allow no other outcome."
        ),
    ),
)

HALF = Break("marks in the last thirty", "The near marks lie anywhere in the last thirty steps.", "near miss")
ANYWHERE = Break("marks anywhere", "Both networks get sequences with marks anywhere.")
IDENTITY = Break(
    "ReLU with identity initialisation",
    "The network for marks anywhere has ReLU units, and its recurrent weights are initialised to the "
    "identity (Le et al. 2015). Its gradient does not vanish at initialisation.",
    "near miss",
)
ALL_AT_ONCE = Break(
    "all elements at once",
    "In both arms, a perceptron that gets all fifty elements at once replaces the recurrent network. It has "
    "no state, so its gradient does not pass through time steps.",
    "rival",
)

LONG_LAGS = Claim(
    name="adding problem with near and distant marks",
    sentence="After 600 steps, a recurrent network adds two marked numbers if both are among the last five "
    "of fifty elements, but its error is at chance level if they are anywhere in the sequence.",
    paper=Figure(
        "No recurrent network before the LSTM solved the adding problem with a minimal lag of 50.",
        where="Hochreiter and Schmidhuber 1997, section 5.4",
        read="text",
    ),
    rule=(
        at_most("error", "marks in the last five", 0.03, toward=0.06),
        at_least("error", "marks anywhere", 0.14, toward=0.1),
    ),
    control="the same network, training and length, with marks anywhere in the fifty steps (the constant "
    "answer 1 has an error of 0.167)",
    control_arm="marks anywhere",
    after_steps=600,
    breaks=(HALF, ANYWHERE, IDENTITY, ALL_AT_ONCE, UNTRAINED),
    chosen_on=(0, 1, 2),
    deviations="Values are in [0, 1], with one mark in each half, so the lags are 37 and 12 on average. "
    "Training uses Adam with a learning rate that falls to 0. The plugin `lstm` shows that an LSTM learns "
    "the same task.",
    history=(
        (
            "Until November 2026 the network with near marks was the control and had to reach an error of "
            "0.03. This is now a bound of the rule. The bounds are unchanged."
        ),
        (
            'Until the end of November 2026 the verdict was "reproduced" (5 of 5 seeds, same bounds), and '
            "there was no rival. The rival is now a perceptron with 17,089 parameters (the recurrent network "
            "has 1,153). On seeds 7101 to 7105, its error is at most 0.010 with marks in the last five, and "
            "0.157 to 0.163 with marks anywhere. So this failure is not specific to recurrent networks."
        ),
    ),
)

LETTER_RATES = (0.01, 0.03, 0.1, 0.3)
ADDING_RATES = (0.005, 0.015, 0.05)


@hookimpl
def experiment(run: Run) -> None:
    if run.option("text", ""):  # --data
        read_text(run)
        return
    run.headline("log10 of gradient over lag")
    find_structure(run)
    if run.wants(VANISHING, EXPLODING):
        compare_gradients(run)
    add(run)


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


class Texts(NamedTuple):
    """Training texts, variants with shuffled letters or random word lengths, validation and test texts."""

    words: Int[Tensor, "count length"]
    shuffled: Int[Tensor, "count length"]
    random: Int[Tensor, "count length"]
    choose: Int[Tensor, "count length"]
    judge: Int[Tensor, "count length"]


class Student(NamedTuple):
    """An arm: a function that builds its network, and the name of its training texts."""

    make: Callable[[], nn.Module]
    texts: str = "words"


def texts(run: Run) -> Texts:
    count, train = run.pick(smoke=4, quick=64, full=256), run.data("texts to train on", "train")
    words = elmans_letters(32, 61, train)
    shuffled = words.gather(1, torch.rand(words.shape, generator=train).argsort(1))
    random = elmans_letters(32, 61, train, random=True)
    choose, judge = (
        elmans_letters(count, 61, run.data(f"texts to {part} by", part)) for part in ("choose", "judge")
    )
    return Texts(*(part.to(run.device) for part in (words, shuffled, random, choose, judge)))


def find_structure(run: Run) -> None:
    network = partial(NextLetter, len(ALPHABET), 20)
    with_memory, without = partial(network, memory=True), Arm(Student(partial(network, memory=False)))
    run.compare(
        STRUCTURE,
        arms={"with memory": Arm(Student(with_memory)), "without memory": without},
        attempt=read_letters,
        read=surprise_at_letters,
        grid=LETTER_RATES,
        score="surprise",
        breaks={
            NO_MEMORY.name: {"with memory": without},
            NO_WORDS.name: {"with memory": Arm(Student(with_memory, "shuffled"))},
            LENGTHS.name: {"with memory": Arm(Student(with_memory, "random"))},
            THREE_LETTERS.name: {"with memory": Arm(Student(partial(ThreeLetters, len(ALPHABET))))},
        },
        world=texts(run),
    )


def read_letters(at: Trial, student: Student, rate: float) -> tuple[float, nn.Module]:
    """Train a network on all texts in each step, and return the validation loss and the network."""
    train = getattr(at.world, student.texts)
    network = student.make().to(at.run.device, at.run.dtype)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    name = f"{at.name}, rate {rate:g}"
    steps = at.length(at.run.pick(smoke=2, quick=250, full=1000))
    at.run.phase("train")
    for step in at.steps(steps, f"letters, {name}", state=(network, optimizer)):
        loss = F.cross_entropy(network(train[:, :-1]).flatten(0, 1), train[:, 1:].flatten())
        at.descend(loss, optimizer, step=step, metric="surprise while learning", arm=name)
    at.run.phase("evaluate")
    with torch.no_grad():
        return surprises(network, at.world.choose).mean().item(), network


@torch.no_grad()
def surprise_at_letters(at: Trial, found: Sweep[nn.Module]) -> dict[str, Tensor]:
    """The loss at each test vowel, and the loss minus ln 3 at each test consonant."""
    judge = at.world.judge
    nats = surprises(found.chosen, judge).clamp(
        min=1e-6
    )  # float32 rounds small losses to 0, which would make a ratio infinite
    vowel = judge[:, 5:] >= ALPHABET.index("a")
    at_vowels, at_consonants = nats[vowel], nats[~vowel]
    at.metric("surprise at vowels", at_vowels.mean().item())
    at.metric("surprise at consonants", at_consonants.mean().item())
    if at.name == "with memory":
        letters = [ALPHABET[i] for i in judge[0, 5:29].tolist()]
        rows = [(letter, round(n, 3)) for letter, n in zip(letters, nats[0, :24].tolist(), strict=True)]
        at.run.table("letters", ("letter", "surprise (nats)"), rows, caption="Loss, as in Elman's figure 4.")
    return {VOWELS: at_vowels, CONSONANTS: at_consonants - math.log(3)}


# The gradient over lags

HIDDEN, LAGS = 64, 100
SINGULAR_VALUES = (0.5, 0.7, 0.9, 1.0, 1.5, 2.0, 4.0)


class Decay(NamedTuple):
    """log10 of the gradient by lag: its change from the first to the last lag, and its linearity (R²)."""

    growth: float
    straightness: float


def recurrent_weights(
    kind: str, largest: float, generator: torch.Generator
) -> Float[Tensor, "hidden hidden"]:
    """A random matrix with the given largest singular value. If orthogonal, all singular values are equal."""
    weight = torch.randn(HIDDEN, HIDDEN, generator=generator, dtype=torch.float64)
    if kind == "orthogonal":
        weight = torch.linalg.qr(weight)[0]
    return weight * largest / torch.linalg.matrix_norm(weight, 2)


def measure_decay(run: Run, kind: str, largest: float) -> Decay:
    rnn = RNN(HIDDEN, HIDDEN).double()  # on the CPU, because small gradients would underflow in float32
    with torch.no_grad():
        # Each unit has its own input, so the gradients of inputs and pre-activations are equal up to a
        # factor.
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
            "linearity of that growth (R²)": exploding.straightness,
            "log10 of growth over 100 steps, random, largest singular value 1.5": vanishing.growth,
            "straightness of the decay, random (R²)": vanishing.straightness,
        }
        run.claim(EXPLODING, values)


# The adding problem


def add(run: Run) -> None:
    far = Arm(Reader(RNN))
    run.compare(
        LONG_LAGS,
        arms={"marks in the last five": Arm(Reader(RNN, window=5)), "marks anywhere": far},
        attempt=for_steps,
        read=error_at_adding,
        grid=ADDING_RATES,
        score="error",
        breaks={
            HALF.name: {"marks in the last five": Arm(Reader(RNN, window=30))},
            ANYWHERE.name: {"marks in the last five": far},
            IDENTITY.name: {"marks anywhere": Arm(Reader(IdentityRNN))},
            ALL_AT_ONCE.name: {
                "marks in the last five": Arm(Reader(AllAtOnce, window=5)),
                "marks anywhere": Arm(Reader(AllAtOnce)),
            },
        },
    )


def for_steps(at: Trial, reader: Reader, rate: float) -> tuple[float, Learned]:
    return reach_back(at, reader, rate, steps=at.length(at.run.pick(smoke=2, quick=600, full=3000)))
