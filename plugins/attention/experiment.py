"""The claims, and a translator that looks back at its source beside one that cannot."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from readtrack.plugin import Best, Bound, Break, Claim, Figure, Run, hookimpl

from .model import MultiHeadAttention, attention_weights

SCALING = Claim(
    name="scaling",
    sentence="The dot product of random vectors has their width as its variance, which saturates the "
    "softmax; divided by the root of the width it does not.",
    paper=Figure(
        "variance d for components of variance 1, which takes the softmax to where its gradients are tiny",
        where="section 3.2.1",
        read="text",
    ),
    rule=(
        Bound("variance over width", ">=", 0.95),
        Bound("variance over width", "<=", 1.05),
        Bound("largest weight, unscaled / scaled", ">=", 3.0),
        Bound("softmax gradient, unscaled / scaled", "<=", 0.5),
    ),
    kind="theorem",
    control="the same scores without the division",
    deviations="Random vectors of width 64 (the paper's), 64 keys for each query.",
)

HEADS = Claim(
    name="heads are free",
    sentence="Heads on a share of the width each cost together what one head on the full width costs.",
    paper=Figure("about the cost of one head with the full width", where="section 3.2.2", read="text"),
    rule=(Bound("different parameter counts", "==", 1), Bound("different flop counts", "==", 1)),
    kind="identity",
    control="one head, against 2, 4 and 8",
    deviations="Matrix products only: there are as many softmaxes as heads.",
)

NO_BOTTLENECK = Claim(
    name="no bottleneck",
    sentence="A decoder that looks at every state of its encoder translates long sentences about as well as "
    "short ones; one that is given a vector of fixed size gets worse with every word.",
    paper=Figure(
        "BLEU 26.75 against 17.82 with a fixed vector, English to French; the gap opens with the length "
        "(figure 2)",
        where="1409.0473, table 1",
        read="secondary",
    ),
    rule=(
        Bound("accuracy at 12 words, attention", ">=", 0.8),
        Bound("gain at 12 words", ">=", 0.2, direction=0.0),
    ),
    control="the same network and weights, which may look at nothing but the one vector; each at the best of "
    "three rates",
    control_reaches=(Bound("accuracy at 4 words, fixed vector", ">=", 0.9),),
    breaks=(
        Break("even weights", "every state of the encoder counts the same, whatever the query"),
        Break("shuffled values", "the states that are averaged are not those that the weights were made for"),
    ),
    shortcuts=("accuracy of a guess",),
    chosen_on=(0, 1, 2),
    deviations="A toy language of 8 words; one-directional LSTMs of width 64; the score is a dot product "
    "instead of a small network; what was found goes to the output only, not into the recurrence.",
    headline=True,
)

VOCAB, WIDTH = 8, 64
LENGTHS = (4, 8, 12)  # words in the sentences of training; 16 are tried too
DRAWN = (4, 8, 12, 12)  # twice as many of the longest, which takes longest to learn


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SCALING):
        measure_saturation(run)
    if run.wants(HEADS):
        count_heads(run)
    if run.wants(NO_BOTTLENECK):
        compare_translators(run)


def measure_saturation(run: Run) -> None:
    """Random queries and keys of growing width, with the division by its root and without."""
    queries, keys = run.pick(smoke=50, quick=500, full=2000), 64
    values: dict[str, float] = {}
    for dim in (1, 4, 16, 64, 256):
        q = torch.randn(queries, 1, dim, generator=run.generator(f"queries of width {dim}"))
        k = torch.randn(queries, keys, dim, generator=run.generator(f"keys of width {dim}"))
        q, k = q.to(run.device, run.dtype), k.to(run.device, run.dtype)
        largest, gradient = {}, {}
        for arm, scale in (("scaled", None), ("unscaled", 1.0)):
            weights = attention_weights(q, k, scale=scale)
            largest[arm] = weights.amax(-1).mean().item()
            gradient[arm] = (1 - weights.square().sum(-1)).mean().item()  # trace of the softmax's Jacobian
            run.metric("softmax gradient", gradient[arm], step=dim, arm=arm)
        if dim == 64:
            values["variance over width"] = (q @ k.mT).var().item() / dim
            values["largest weight, unscaled / scaled"] = largest["unscaled"] / largest["scaled"]
            values["softmax gradient, unscaled / scaled"] = gradient["unscaled"] / gradient["scaled"]
    run.claim(SCALING, values)


def count_heads(run: Run) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    parameters, flops = set(), set()
    for heads in (1, 2, 4, 8):
        with torch.device("meta"):  # shapes alone: nothing is computed
            attention, x = MultiHeadAttention(64, heads), torch.empty(1, 32, 64)
        with FlopCounterMode(display=False) as counter:
            attention(x)
        parameters.add(sum(weight.numel() for weight in attention.parameters()))
        flops.add(counter.get_total_flops())
    run.claim(HEADS, {"different parameter counts": len(parameters), "different flop counts": len(flops)})


class Translator(nn.Module):
    """A recurrent encoder-decoder (1409.0473, section 3).

    attend  the decoder looks at all of the encoder's states; else at nothing but the last one, the vector of
            fixed size in which it begins
    """

    def __init__(self, vocab: int, model: int, *, attend: bool) -> None:
        super().__init__()
        self.attend = attend
        self.source = nn.Embedding(vocab, model)
        self.target = nn.Embedding(vocab + 1, model)  # the last opens every sentence
        self.encoder = nn.LSTM(model, model, batch_first=True)
        self.decoder = nn.LSTM(model, model, batch_first=True)
        self.attention = MultiHeadAttention(model, heads=1)
        self.readout = nn.Linear(2 * model, vocab)

    def read(
        self, source: Int[Tensor, "batch keys"], written: Int[Tensor, "batch queries"]
    ) -> tuple[Float[Tensor, "batch queries model"], Float[Tensor, "batch context model"]]:
        """The decoder's states after each word written so far, and what they may look at."""
        states, last = self.encoder(self.source(source))
        decoded, _ = self.decoder(self.target(written), last)
        return decoded, states if self.attend else states[:, -1:]

    def forward(
        self, source: Int[Tensor, "batch keys"], written: Int[Tensor, "batch queries"]
    ) -> Float[Tensor, "batch queries vocab"]:
        """Logits of the word that comes next after each word written."""
        decoded, context = self.read(source, written)
        return self.readout(torch.cat((decoded, self.attention(decoded, context)), -1))


def with_even_weights() -> Translator:
    """Queries of zero: all scores are equal."""
    translator = Translator(VOCAB, WIDTH, attend=True)
    nn.init.zeros_(translator.attention.query.weight).requires_grad_(False)
    return translator


def with_shuffled_values() -> Translator:
    """The value of each position is that of another."""
    translator = Translator(VOCAB, WIDTH, attend=True)
    translator.attention.value.register_forward_hook(
        lambda _layer, _inputs, values: values[:, torch.randperm(values.shape[1], device=values.device)]
    )
    return translator


def compare_translators(run: Run) -> None:
    builders: dict[str, Callable[[], Translator]] = {
        "attention": partial(Translator, VOCAB, WIDTH, attend=True),
        "fixed vector": partial(Translator, VOCAB, WIDTH, attend=False),
    }
    if run.without("even weights"):
        builders["attention"] = with_even_weights
    if run.without("shuffled values"):
        builders["attention"] = with_shuffled_values
    arms = run.arms(builders, control="fixed vector")
    rates = run.pick(smoke=(0.02,), quick=(0.006, 0.02, 0.06), full=(0.002, 0.006, 0.02, 0.06))
    best: dict[str, Best[Translator]] = {}
    accuracy: dict[tuple[str, int], float] = {}
    for arm, make in arms.items():
        best[arm] = run.sweep(
            arm, rates, partial(train_translator, run, arm, make), score="validation loss on sentences"
        )
        run.phase("evaluate")
        for length in (*LENGTHS, 16):
            accuracy[arm, length] = translate(run, best[arm].result, length)
            run.metric("accuracy over words", accuracy[arm, length], step=length, arm=arm)
    run.headline("accuracy over words")
    run.claim(
        NO_BOTTLENECK,
        {
            "accuracy at 12 words, attention": accuracy["attention", 12],
            "gain at 12 words": accuracy["attention", 12] - accuracy["fixed vector", 12],
            "accuracy at 4 words, fixed vector": accuracy["fixed vector", 4],
            "accuracy of a guess": 1 / VOCAB,
        },
        tuned=list(best.values()),
    )
    show_alignment(run, best["attention"].result)


def sentences(
    run: Run, count: int, length: int, draw: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, "count length"], Int[Tensor, "count length"]]:
    """Sources, their translations, and what a decoder has before it when it writes them.

    The language: every word has one translation, then neighbours change places.
    """
    lexicon = torch.randperm(VOCAB, generator=run.generator("lexicon"))
    source = torch.randint(VOCAB, (count, length), generator=draw)
    target = lexicon[source].unflatten(1, (-1, 2)).flip(2).flatten(1)
    written = F.pad(target[:, :-1], (1, 0), value=VOCAB)
    return source.to(run.device), target.to(run.device), written.to(run.device)


def train_translator(
    run: Run, arm: str, make: Callable[[], Translator], rate: float
) -> tuple[float, Translator]:
    """One network for sentences of all lengths; its loss on other sentences, and itself."""
    torch.manual_seed(run.seed)
    translator = make().to(run.device, run.dtype)
    steps = run.pick(smoke=4, quick=500, full=2000)
    optimizer = torch.optim.Adam(translator.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    draw = run.generator("sentences to train on")
    run.phase("train")
    for step in run.steps(steps, f"{arm}, rate {rate:g}"):
        length = DRAWN[int(torch.randint(len(DRAWN), (), generator=draw))]
        source, target, written = sentences(run, 64, length, draw)
        loss = F.cross_entropy(translator(source, written).flatten(0, 1), target.flatten())
        run.descend(loss, optimizer, step=step, arm=f"{arm}, rate {rate:g}")
        schedule.step()

    draw, losses = run.generator("sentences to choose by"), []
    with torch.no_grad():
        for length in LENGTHS:
            source, target, written = sentences(run, 200, length, draw)
            losses.append(F.cross_entropy(translator(source, written).flatten(0, 1), target.flatten()))
    return torch.stack(losses).mean().item(), translator


@torch.no_grad()
def translate(run: Run, translator: Translator, length: int) -> float:
    """The fraction of words that it gets right in new sentences, each written after its own words."""
    count = run.pick(smoke=20, quick=500, full=2000)
    source, target, written = sentences(run, count, length, run.generator(f"{length} words to judge by"))
    translation = written[:, :1]
    for _ in range(length):
        likeliest = translator(source, translation)[:, -1:].argmax(-1)
        translation = torch.cat((translation, likeliest), 1)
    return (translation[:, 1:] == target).double().mean().item()


@torch.no_grad()
def show_alignment(run: Run, translator: Translator) -> None:
    source, _, written = sentences(run, 1, 12, run.generator("12 words to judge by"))
    decoded, context = translator.read(source, written)
    weights = attention_weights(translator.attention.query(decoded), translator.attention.key(context))
    run.image("alignment", weights[0], caption="Where a word (row) looks in its source (column).")
