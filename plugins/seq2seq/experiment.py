"""Made-up translations, with the source read backwards and as it is, written greedily and by beams."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from readtrack import scores
from readtrack.plugin import Bound, Break, Claim, Figure, Run, hookimpl

from .model import END, Sentence, Seq2Seq, beam_search, greedy

ANOTHER_ORDER = Break("another order", "The source is read in a shuffled order, not backwards.")

REVERSING = Claim(
    name="reading backwards",
    sentence="Reading the source backwards eases the training: after as many steps more words are right.",
    paper=Figure("BLEU 25.9 to 30.6, perplexity 5.8 to 4.7", where="section 3.3", read="text"),
    rule=(Bound("accuracy gained by reversing", ">=", 0.05, direction=0.0),),
    control="the same network, which reads the source as it is",
    control_reaches=(Bound("accuracy on short sentences, as it is", ">=", 0.8),),
    breaks=(ANOTHER_ORDER,),
    chosen_on=(0, 1),
    deviations="A lexicon of 30 words, the two of each pair put in an order; one layer of 64, 300 steps of "
    "32, each arm at the best of three rates. The target has as many words as the source.",
)

LENGTH, SHORT, WORDS, HIDDEN = 12, 4, 31, 64

Order = Callable[[Int[Tensor, "batch source"]], Int[Tensor, "batch source"]]


def sentences(
    count: int, length: int, lexicon: Int[Tensor, " words"], generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, "count longer"]]:
    """Random words, and their translations with END: of each pair the word of the larger number first."""
    source = torch.randint(1, len(lexicon), (count, length), generator=generator)
    pairs, translated = (words.unflatten(1, (-1, 2)) for words in (source, lexicon[source]))
    turned = pairs[..., :1] < pairs[..., 1:]
    target = torch.where(turned, translated.flip(2), translated).flatten(1)
    return source, torch.cat((target, torch.full((count, 1), END)), 1)


class Reader(Seq2Seq):
    """Reads the source in any order."""

    def __init__(self, order: Order) -> None:
        super().__init__(WORDS, WORDS, hidden=HIDDEN, layers=1)
        self.order = order

    def ordered(self, source: Int[Tensor, "batch source"]) -> Int[Tensor, "batch source"]:
        return self.order(source)


def backwards(source: Int[Tensor, "batch source"]) -> Int[Tensor, "batch source"]:
    return source.flip(1)


def as_it_is(source: Int[Tensor, "batch source"]) -> Int[Tensor, "batch source"]:
    return source


def shuffled(source: Int[Tensor, "batch source"]) -> Int[Tensor, "batch source"]:
    """Every other word, and then the rest: neighbours lie half a sentence apart."""
    return torch.cat((source[:, ::2], source[:, 1::2]), 1)


@hookimpl
def experiment(run: Run) -> None:
    orders: dict[str, Order] = {
        "reversed": shuffled if run.without(ANOTHER_ORDER.name) else backwards,
        "as it is": as_it_is,
    }
    arms = run.arms(orders, control="as it is")
    rates = run.pick(smoke=(0.01,), quick=(0.003, 0.01, 0.03), full=(0.003, 0.01, 0.03))
    best = {
        arm: run.sweep(
            arm,
            rates,
            partial(train, run, arm, order, length=LENGTH),
            score="validation loss",
        )
        for arm, order in arms.items()
    }
    for arm, found in best.items():
        for place, value in enumerate(found.result.right[:LENGTH].tolist()):
            run.metric("accuracy over position", value, step=place, arm=arm)
        run.metric("accuracy", found.result.right[:LENGTH].mean().item(), arm=arm)
    run.headline("accuracy over position")
    _, short = train(run, "short sentences", arms["as it is"], best["as it is"].value, length=SHORT)
    accuracy = {arm: found.result.right[:LENGTH].mean().item() for arm, found in best.items()}
    run.claim(
        REVERSING,
        {
            "accuracy gained by reversing": accuracy["reversed"] - accuracy["as it is"],
            "accuracy on short sentences, as it is": short.right[:SHORT].mean().item(),
        },
        tuned=list(best.values()),
    )
    if not run.null and not run.broken:
        show(run, best["reversed"].result)


class Trained(NamedTuple):
    """right: how often the word at each position is right; source, target: sentences to judge by"""

    right: Float[Tensor, " positions"]
    model: Seq2Seq
    source: Int[Tensor, "count length"]
    target: Int[Tensor, "count longer"]


def train(run: Run, arm: str, order: Order, rate: float, *, length: int) -> tuple[float, Trained]:
    """The loss on sentences to choose by, and what is found on others."""
    torch.manual_seed(run.seed)
    model = Reader(order).to(run.device, run.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    lexicon = torch.cat(
        (torch.zeros(1).long(), 1 + torch.randperm(WORDS - 1, generator=run.generator("lexicon")))
    )
    steps = run.pick(smoke=2, quick=300, full=3000)
    batches, name = run.generator("sentences to train on"), f"{arm}, rate {rate:g}"

    def drawn(count: int, generator: torch.Generator) -> list[Tensor]:
        return [words.to(run.device) for words in sentences(count, length, lexicon, generator)]

    run.phase("train")
    for step in run.steps(steps, f"translating, {name}"):
        loss = model.loss(*drawn(32, batches))
        run.descend(loss, optimizer, step=step, metric="loss of the translations", arm=name, clip=5.0)
    run.phase("evaluate")
    count = run.pick(smoke=8, quick=500, full=2000)
    with torch.no_grad():
        chosen_by = model.loss(*drawn(count, run.generator("sentences to choose by"))).item()
        source, target = drawn(count, run.generator("sentences to judge by"))
        right = (model(source, target).argmax(-1) == target).float().mean(0).cpu()
    return chosen_by, Trained(right, model, source, target)


def show(run: Run, found: Trained) -> None:
    """What the reversed arm writes greedily and by a beam, and BLEU over the width of the beam (table 1)."""
    count = run.pick(smoke=1, quick=30, full=200)
    references = [words[:-1] for words in found.target[:count].tolist()]
    likeliest: dict[int, list[Sentence]] = {}
    for beam in (1, 2, 12):
        likeliest[beam] = [
            next(iter(beam_search(found.model, source, beam=beam, limit=2 * LENGTH)), Sentence((), 0.0))
            for source in found.source[:count]
        ]
        written = [list(sentence.words) for sentence in likeliest[beam]]
        run.metric(
            "BLEU over the beam's width",
            scores.bleu([[words] for words in references], written, smooth=True),
            step=beam,
            arm="reversed",
        )
    run.axes("BLEU over the beam's width", x="sentences that are kept", y="BLEU")
    lines = []
    for row, wide in enumerate(likeliest[12][:6]):
        source, target = found.source[row : row + 1], references[row]
        words = greedy(found.model, source, LENGTH)[0].tolist()
        words = words[: words.index(END)] if END in words else words
        given = torch.tensor([[*words, END]], device=source.device)
        with torch.no_grad():
            log = found.model(source, given).log_softmax(-1).gather(2, given[..., None]).sum().item()
        lines.append(f"source  {spelled(source[0].tolist())}")
        lines.append(f"target  {spelled(target).upper()}")
        for name, some, value in (("greedy", words, log), ("beam", wide.words, wide.log_probability)):
            right = sum(a == b for a, b in zip(some, target, strict=False))
            lines.append(f"{name:<6}  {spelled(some).upper()}  {right} right, ln p {value:.1f}")
        lines.append("")
    run.text(
        "translations",
        "\n".join(lines),
        caption="Word by word the likeliest, and the likeliest sentence that a beam of 12 finds. "
        "The network reads backwards; words are made up.",
    )


def spelled(words: Sequence[int]) -> str:
    """A syllable for each word."""
    return " ".join("bdgklm"[word % 6] + "aeiou"[word // 6 % 5] for word in words)
