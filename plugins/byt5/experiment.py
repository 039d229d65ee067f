"""Checks the parameter count, and measures the accuracy of byte and token models on noisy texts."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate, pairwise
from random import Random
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

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

from ..byte_bpe import ByteBPE, train
from ..byte_bpe.words import ID, split
from .model import END, FIRST_BYTE, VOCAB, ByT5, padded, to_ids

SIZE = Claim(
    name="the released size",
    sentence="The small configuration has the same number of parameters as the released small model.",
    paper=Figure(
        "The paper states 300 million parameters. The released configuration has 299,637,760",
        where="table 1",
        read="secondary",
    ),
    rule=(Bound("parameters", "==", 299_637_760),),
    kind="identity",
)

CHAINED = Break(
    "cumulative byte sums",
    "Each byte is replaced by the sum of all bytes up to and including it, so an error changes every later "
    "id.",
    "near miss",
)
DROPOUT = Break(
    "BPE-dropout",
    "The model reads byte-pair tokens. In training, each merge is skipped with probability 0.3, so a word "
    "is split in many ways.",
    "rival",
)

ROBUST = Claim(
    name="accuracy on noisy text",
    sentence="Trained on clean texts, a byte-level model is at least 20 points more accurate on texts with "
    "dropped or repeated letters than a model with byte-pair tokens. On clean texts it is at most 3 points "
    "less accurate.",
    paper=Figure(
        "ByT5 is competitive with token models, and significantly more robust to noise", read="abstract"
    ),
    rule=(
        at_least("accuracy, drop 20 %", "bytes", 0.2, minus="tokens", toward=0.0),
        at_least("accuracy, repeat 20 %", "bytes", 0.2, minus="tokens", toward=0.0),
        at_least("accuracy, clean", "bytes", -0.03, minus="tokens"),
    ),
    control="the same network on byte-pair tokens of the same texts, trained for the same number of steps. "
    "Each model uses its best learning rate from the same grid",
    control_arm="tokens",
    control_reaches=(at_least("accuracy, clean", "tokens", 0.95),),
    breaks=(CHAINED, DROPOUT, UNTRAINED),
    chosen_on=(0, 1),
    deviations=(
        "Only the test texts are noisy, as in one of the paper's two settings. A text consists of two "
        "synthetic words from one of 6 topics, and the model generates the topic. There are 48 words in "
        "all. We train one model size, with hidden size 48, two encoder layers and one decoder layer. There "
        "is no pre-training and no dropout. The optimiser is AdamW instead of Adafactor. After 150 merges, "
        "most words are a single token. BPE-dropout skips merges with probability 0.3. The BPE-dropout "
        "paper uses 0.1, but our model is less robust with that value. Results for noise that introduces "
        "capitals are reported but not judged, because neither model has seen a capital in training. The "
        "gaps are just as large after four times as many steps. On seeds 0 and 1 the gaps are 0.33 and 0.33 "
        "with dropped letters, and 0.32 and 0.36 with repeated letters."
    ),
    headline=True,
    history=(
        (
            "Until November 2026 there was no rival with randomly sampled splits (BPE-dropout), and the "
            'verdict was "reproduced" (5 of 5 seeds). The bounds are unchanged. The rival was added because '
            "a third to a half of the tokens in a noisy text do not occur in training."
        ),
    ),
)

TOPICS, WORDS = 6, 8  # topics, and words per topic
MERGES = 150
FIRST_TOPIC = FIRST_BYTE + ord("A")


class Reader(NamedTuple):
    """How an arm encodes a text.

    ids       maps a text to its ids, in evaluation
    pieces    the string that each id stands for, for display
    vocab     size of the vocabulary
    training  maps a text to its ids in training, if these are sampled
    """

    ids: Callable[[str], list[int]]
    pieces: Callable[[str], list[str]]
    vocab: int
    training: Callable[[str, Random], list[int]] | None = None


class Language(NamedTuple):
    """Words by topic, and byte-pair merges learned from texts of these words."""

    words: list[list[str]]
    bpe: ByteBPE


def bytes_reader(language: Language) -> Reader:
    return Reader(to_ids, list, VOCAB)


def chained_reader(language: Language) -> Reader:
    def ids(text: str) -> list[int]:
        return to_ids(bytes(accumulate(text.encode(), lambda total, byte: (total + byte) % 256)))

    return Reader(ids, list, VOCAB)


def tokens_reader(language: Language) -> Reader:
    """Byte-pair tokens and the same three special ids as for bytes."""
    bpe = language.bpe

    def ids(text: str) -> list[int]:
        return [*(i + FIRST_BYTE for i in bpe.encode(text)), END]

    def pieces(text: str) -> list[str]:
        return [bpe.tokens[i].decode() for i in bpe.encode(text)]

    return Reader(ids, pieces, len(bpe) + FIRST_BYTE)


def dropout_reader(language: Language) -> Reader:
    """Byte-pair tokens with BPE-dropout in training (Provilkov, Emelianenko and Voita 2019)."""

    def training(text: str, draw: Random) -> list[int]:
        return [*(i + FIRST_BYTE for i in merged_with_dropout(language.bpe, text, draw)), END]

    return tokens_reader(language)._replace(training=training)


def merged_with_dropout(bpe: ByteBPE, text: str, draw: Random, share: float = 0.3) -> list[int]:
    """Ids of a text. Each possible merge is skipped with probability `share`."""
    found: list[int] = []
    for word in split(text):
        ids = [ID[byte] for byte in word.encode()]
        while possible := [
            (bpe.ranks[pair], place)
            for place, pair in enumerate(pairwise(ids))
            if pair in bpe.ranks and draw.random() >= share
        ]:
            rank, place = min(possible)
            ids[place : place + 2] = [bpe.merged[rank]]
        found += ids
    return found


def make_words(draw: Random) -> list[list[str]]:
    """Words of two or three syllables, the same number for each topic."""
    words: set[str] = set()
    while len(words) < TOPICS * WORDS:
        syllables = (draw.choice("bcdfglmnprstvz") + draw.choice("aeiou") for _ in range(draw.choice((2, 3))))
        words.add("".join(syllables) + draw.choice(("", "n", "r", "s")))
    mixed = sorted(words)
    draw.shuffle(mixed)
    return [mixed[topic::TOPICS] for topic in range(TOPICS)]


class Text(NamedTuple):
    text: str
    topic: int


def draw_texts(words: list[list[str]], count: int, draw: Random) -> list[Text]:
    """Texts of two words of the same topic."""
    topics = [draw.randrange(TOPICS) for _ in range(count)]
    return [Text(" ".join(draw.choices(words[topic], k=2)), topic) for topic in topics]


# Section 5's noise


def dropped(text: str, draw: Random, *, share: float) -> str:
    """Drops each letter with probability `share`, but never all letters."""
    return "".join(c for c in text if draw.random() >= share) or text[0]


def repeated(text: str, draw: Random, *, share: float) -> str:
    """With probability `share`, repeats each letter one to three more times."""
    return "".join(c * (1 + draw.randint(1, 3)) if draw.random() < share else c for c in text)


def random_case(text: str, draw: Random) -> str:
    return "".join(c.upper() if draw.random() < 0.5 else c for c in text)


Noise = Callable[[str, Random], str]

NOISES: dict[str, Noise] = {
    "clean": lambda text, draw: text,
    "drop 10 %": partial(dropped, share=0.1),
    "drop 20 %": partial(dropped, share=0.2),
    "drop 30 %": partial(dropped, share=0.3),
    "repeat 20 %": partial(repeated, share=0.2),
    "antspeak": lambda text, draw: " ".join(text.upper()),
    "upper case": lambda text, draw: text.upper(),
    "random case": random_case,
}
DROPPED = {"clean": 0.0, "drop 10 %": 0.1, "drop 20 %": 0.2, "drop 30 %": 0.3}


@hookimpl
def experiment(run: Run) -> None:
    if run.wants(SIZE):
        with torch.device("meta"):
            run.claim(SIZE, {"parameters": sum(weight.numel() for weight in ByT5().parameters())})
    table = run.compare(
        ROBUST,
        arms={"bytes": Arm(bytes_reader), "tokens": Arm(tokens_reader)},
        attempt=fit,
        read=judged,
        grid=run.pick(smoke=(3e-3,), quick=(1.5e-3, 6e-3, 2.5e-2), full=(4e-4, 1.5e-3, 6e-3, 2.5e-2)),
        score="validation nats",
        breaks={CHAINED.name: {"bytes": Arm(chained_reader)}, DROPOUT.name: {"bytes": Arm(dropout_reader)}},
        world=language(run),
    )
    if run.wants(ROBUST):
        show(run, table)


def language(run: Run) -> Language:
    """Words by topic, and merges learned from a thousand texts that are not used for testing."""
    words = make_words(drawing(run.data("words", "world")))
    texts = draw_texts(words, 1000, drawing(run.data("texts to merge", "world")))
    return Language(words, ByteBPE(train("\n".join(text for text, _ in texts), MERGES)))


def drawing(generator: torch.Generator) -> Random:
    return Random(int(torch.randint(2**62, (), generator=generator)))


def spoiled(run: Run, words: list[list[str]], noise: str, part: Literal["choose", "judge"]) -> list[Text]:
    """Validation or test texts with noise. All kinds of noise are applied to the same clean texts."""
    count = run.pick(smoke=8, quick=400, full=2000)
    texts = draw_texts(words, count, drawing(run.data(f"texts to {part} by", part)))
    draw = drawing(run.data(f"noise to {part} by, {noise}", part))
    return [Text(NOISES[noise](text, draw), topic) for text, topic in texts]


class Trained(NamedTuple):
    network: ByT5
    reader: Reader


def fit(at: Trial, make: Callable[[Language], Reader], rate: float) -> tuple[float, Trained]:
    """Train on clean texts, and return the loss on clean validation texts in nats and the network."""
    run, reader = at.run, make(at.world)
    steps = run.pick(smoke=2, quick=100, full=600)
    network = ByT5(reader.vocab, model=48, heads=4, dim=12, hidden=96, layers=(2, 1), dropout=0.0)
    network = network.to(run.device, run.dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps + 1, pct_start=0.1)
    draw, splits = (drawing(at.generator(stream)) for stream in ("texts to train on", "splits"))
    run.phase("train")
    for step in at.steps(
        steps, f"{at.name}, rate {rate:g}", state=(network, optimizer, schedule, draw, splits)
    ):
        logits, topic = read(network, reader, draw_texts(at.world.words, 32, draw), splits)
        loss = F.cross_entropy(logits, topic)
        at.descend(loss, optimizer, step=step, arm=f"{at.name}, rate {rate:g}", clip=1.0)
        schedule.step()
    run.phase("evaluate")
    with torch.no_grad():
        logits, topic = read(network, reader, spoiled(run, at.world.words, "clean", "choose"))
    return F.cross_entropy(logits, topic).item(), Trained(network, reader)


@torch.no_grad()
def judged(at: Trial, found: Sweep[Trained]) -> dict[str, Float[Tensor, " texts"]]:
    """For each kind of noise, 1 for each text whose topic is predicted correctly, else 0."""
    right, (network, reader) = {}, found.chosen
    for noise in NOISES:
        logits, topic = read(network, reader, spoiled(at.run, at.world.words, noise, "judge"))
        right[f"accuracy, {noise}"] = (logits.argmax(-1) == topic).double()
    for noise, share in DROPPED.items():
        at.metric("accuracy over dropped letters", right[f"accuracy, {noise}"].mean().item(), step=share)
    return right


def read(
    network: ByT5, reader: Reader, texts: list[Text], draw: Random | None = None
) -> tuple[Float[Tensor, "batch vocab"], Int[Tensor, " batch"]]:
    """Logits of the single output byte, and the target. Topics are A, B, C …

    draw  samples the splits in training; None in evaluation
    """
    device = network.readout.weight.device
    if draw is not None and reader.training is not None:
        ids = [reader.training(text, draw) for text, _ in texts]
    else:
        ids = [reader.ids(text) for text, _ in texts]
    source, visible = (part.to(device) for part in padded(ids))
    topic = torch.tensor([topic for _, topic in texts], device=device)
    return network(source, torch.zeros_like(source[:, :1]), visible=visible)[:, 0], topic + FIRST_TOPIC


@torch.no_grad()
def show(run: Run, table: Table) -> None:
    """Save accuracies, and example texts with each arm's split and predicted topic."""
    run.axes(
        "accuracy over dropped letters", x="share of letters dropped", y="share of texts classified correctly"
    )
    run.headline("accuracy over dropped letters")
    arms: Mapping[str, Sweep[Trained]] = table.sweeps
    rows = [(noise, *(round(float(table[arm, f"accuracy, {noise}"]), 3) for arm in arms)) for noise in NOISES]
    run.table("noise", ("noise", *arms), rows, caption="Share of texts classified correctly.")
    lines, words = [], table.world.words
    clean = spoiled(run, words, "clean", "judge")
    for arm, sweep in arms.items():
        ids = sum(len(sweep.chosen.reader.ids(text)) for text, _ in clean) / len(clean)
        run.metric("ids a text", ids, arm=arm)
    for noise in NOISES:
        [text] = spoiled(run, words, noise, "judge")[:1]
        lines.append(f"{noise}: {clean[0].text} ({chr(65 + clean[0].topic)})")
        for arm, sweep in arms.items():
            network, reader = sweep.chosen
            written = read(network, reader, [text])[0].argmax().item() - FIRST_BYTE
            said = chr(written) if 65 <= written < 65 + TOPICS else "?"
            lines.append(f"  {arm:7} {'|'.join(reader.pieces(text.text))}  → {said}")
        lines.append("")
    run.text("one text with errors", "\n".join(lines), caption="Each token is the text between two bars.")
