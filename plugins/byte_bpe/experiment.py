"""Measures bytes per token for several ways to choose pairs, and tests unknown words and round trips."""

import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise
from random import Random
from typing import NamedTuple

import torch

from readtrack import data
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
    hookimpl,
)

from .encoding import ByteBPE
from .training import Pair, Pairs, train
from .words import ID, count_words, split

LOSSLESS = Claim(
    name="round trip of texts and bytes",
    sentence="Encoding and decoding returns any string and any bytes unchanged.",
    paper=Figure(
        "GPT-2 assigns a probability to any Unicode string. The paper has no figure.",
        where="section 2.2 of Radford and others",
        read="text",
    ),
    rule=(Bound("texts changed by the round trip", "==", 0.0), Bound("ids without a token", "==", 0.0)),
    kind="identity",
    deviations="Held-out text, source code and random texts are encoded and decoded. Half of the random "
    "texts are code points of all planes, including unpaired surrogates, and half are random bytes.",
)

OPEN = Claim(
    name="unknown words, byte-level BPE and word vocabulary",
    sentence="Byte-level merges can encode words that do not occur in the training text, but a vocabulary of "
    "words cannot.",
    paper=Figure(
        "The test set has 1,079 unknown words with a vocabulary of words, and none with byte-pair encoding",
        where="table 1 of Sennrich and others",
        read="table",
    ),
    kind="theorem",
    rule=(
        Bound("words lost, byte-level BPE", "==", 0.0),
        Bound("words lost, all training words", ">", 0.0),
    ),
    control="a vocabulary of all words in the training text (a word vocabulary of the same size as ours is "
    "also shown)",
    headline=True,
    deviations="A word counts as lost if decoding does not return it. The text is held-out prose from the "
    "manual that the training text comes from, and always contains a new word. The abstract also reports "
    "better translations (1.1 and 1.3 BLEU), which we do not test.",
)

SHUFFLED = Break("shuffled letters", "The merges are learned from the same letters, shuffled.")
ONCE = Break(
    "pairs counted once",
    "The pairs of bytes are counted only once, not after each merge, so no token has more than two bytes.",
    "near miss",
)
SUBSTRINGS = Break(
    "pruned substrings",
    "6,000 frequent substrings of 2 to 12 bytes are pruned to the 300 that save the most tokens, and a word "
    "is split into as few tokens as possible.",
    "rival",
)

MERGES, LONGEST, POOL = 300, 12, 20

SHORT = Claim(
    name="bytes per token, most frequent and random pairs",
    sentence="With 300 merges learned from prose, held-out prose has at least 1.8 bytes per token. This is "
    "at least 1.1 times as many as with merges of random pairs, sampled in proportion to their frequency. "
    "The rival (pruned substrings) also passes both bounds, with even more bytes per token.",
    paper=Figure(
        "With 59,500 merges there are 4.9 characters per token. We computed this from the paper's token "
        "counts, which are in millions.",
        where="table 1 of Sennrich and others",
        read="table",
    ),
    rule=(
        at_least("bytes per token", "most frequent pair", 1.8, over="bytes", toward=1.2),
        at_least("bytes per token", "most frequent pair", 1.1, over="random pair", toward=1.02),
    ),
    control="the same number of merges of random pairs, sampled in proportion to their frequency (without "
    "merges there is 1 byte per token)",
    control_arm="random pair",
    control_reaches=(at_least("bytes per token", "random pair", 1.2, over="bytes"),),
    breaks=(SHUFFLED, ONCE, SUBSTRINGS, UNTRAINED),
    chosen_on=(0, 1),
    deviations="There are 300 merges, not 59,500. The merges are learned from nine tenths of Python's "
    "language reference, and we measure on the other tenth. The paper does not test merges of random pairs.",
    history=(
        (
            'Until November 2026 the verdict was "reproduced", with the same bounds. Random pairs are now '
            "sampled from a separate random stream. The near miss (pairs counted once) is new."
        ),
        (
            "The first rival split words by longest match with the 300 most frequent substrings, and missed "
            "the bound of 1.1 (1.06 on seeds 0 and 1). Pruned substrings replace this rival because they "
            "are stronger."
        ),
    ),
)


class World(NamedTuple):
    seen: str
    held_out: str


class Learned(NamedTuple):
    """count: number of tokens in a text when only some of the `size` merges are used"""

    count: Callable[[str, int], int]
    size: int


Learn = Callable[[Trial, int], Learned]


@hookimpl
def experiment(run: Run) -> None:
    run.phase("setup")
    world = parted(run)
    learners: dict[str, Learn] = {
        "most frequent pair": partial(by_merges, most_frequent),
        "random pair": partial(by_merges, random_merges),
    }
    changed: dict[Break, Learn] = {
        SHUFFLED: partial(by_merges, of_shuffled_letters),
        ONCE: partial(by_merges, counted_once),
        SUBSTRINGS: by_substrings,
    }
    run.compare(
        SHORT,
        arms={name: Arm(learn) for name, learn in learners.items()},
        attempt=learn_from_text,
        read=compression,
        grid=run.pick(smoke=(50,), quick=(MERGES,), full=(MERGES,)),
        what="merges",
        score="bytes per token of the text that merges are learned from",
        keep="highest",
        widen=False,
        references={"bytes": {"bytes per token": 1.0}},
        breaks={one.name: {"most frequent pair": Arm(learn)} for one, learn in changed.items()},
        world=world,
    )
    run.headline("bytes per token")
    if run.wants(OPEN, LOSSLESS):
        look_at(run, world)


def parted(run: Run) -> World:
    """Holds out a random stretch of a tenth of the text for testing. Merges are learned from the rest."""
    text = data.text()[: run.pick(smoke=20_000, quick=None, full=None)]
    length = len(text) // 10
    start = int(torch.randint(len(text) - length, (), generator=run.data("held-out text", "world")))
    lines = text[start : start + length].splitlines(keepends=True)
    held_out = "".join(lines[row] for row in run.rows(len(lines), "judge"))
    return World(text[:start] + text[start + length :], held_out)


def learn_from_text(at: Trial, learn: Learn, merges: int) -> tuple[float, Learned]:
    found = learn(at, sum(1 for _ in at.steps(merges, at.name)))
    return bytes_per_token(at.world.seen, found, found.size), found


def bytes_per_token(text: str, found: Learned, size: int) -> float:
    return len(text.encode()) / found.count(text, size)


def by_merges(choose: Callable[[Trial, int], list[Pair]], at: Trial, size: int) -> Learned:
    merges = choose(at, size)
    return Learned(lambda text, size: len(ByteBPE(merges[:size]).encode(text)), len(merges))


def most_frequent(at: Trial, merges: int) -> list[Pair]:
    """The paper's choice: the most frequent pair."""
    return train(at.world.seen, merges)


def random_merges(at: Trial, merges: int) -> list[Pair]:
    """The control: pairs sampled in proportion to their frequency."""
    pairs, found, draw = Pairs(at.world.seen), [], Random(at.generator("pairs").initial_seed())
    for _ in range(merges):
        at.run.check_cancelled()
        pair = any_pair(pairs, draw)
        pairs.merge(pair)
        found.append(pair)
    return found


def any_pair(pairs: Pairs, draw: Random) -> Pair:
    """A random pair, sampled in proportion to its frequency."""
    [pair] = draw.choices(list(pairs.counts), cum_weights=list(accumulate(pairs.counts.values())))
    return pair


def of_shuffled_letters(at: Trial, merges: int) -> list[Pair]:
    letters = list(at.world.seen)
    Random(at.generator("letters").initial_seed()).shuffle(letters)
    return train("".join(letters), merges)


def counted_once(at: Trial, merges: int) -> list[Pair]:
    """Merges the pairs of bytes that are most frequent before the first merge."""
    counts: Counter[Pair] = Counter()
    for word, times in count_words(at.world.seen).items():
        for left, right in pairwise(word):
            counts[ID[left], ID[right]] += times
    return [pair for pair, _ in counts.most_common(merges)]


def by_substrings(at: Trial, size: int) -> Learned:
    """Starts from `POOL` · `size` frequent substrings, and repeatedly removes the quarter whose removal adds
    the fewest tokens to the text. Unigram language models (Kudo 2018) are pruned in this way.
    """
    words, counts = count_words(at.world.seen), Counter[bytes]()
    for word, times in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + LONGEST) + 1):
                counts[word[start:end]] += times
    kept = [substring for substring, _ in counts.most_common(POOL * size)]
    while len(kept) > size:
        at.run.check_cancelled()
        saved = tokens_saved(words, set(kept))
        kept = sorted(kept, key=saved.__getitem__, reverse=True)[: max(size, len(kept) * 3 // 4)]

    def count(text: str, size: int) -> int:
        tokens = set(kept[:size])
        return sum(len(fewest_tokens(word, tokens)) * n for word, n in count_words(text).items())

    return Learned(count, len(kept))


def tokens_saved(words: Counter[bytes], tokens: set[bytes]) -> dict[bytes, int]:
    """Number of tokens that each token saves: its uses × (number of tokens that would replace it - 1)."""
    used: Counter[bytes] = Counter()
    for word, times in words.items():
        for token in fewest_tokens(word, tokens):
            used[token] += times
    return {token: used[token] * (len(fewest_tokens(token, tokens - {token})) - 1) for token in tokens}


def fewest_tokens(word: bytes, tokens: set[bytes]) -> list[bytes]:
    """`word` split into as few tokens as possible. Single bytes are tokens too."""
    splits: list[list[bytes]] = [[]]
    for end in range(1, len(word) + 1):
        starts = (s for s in range(max(0, end - LONGEST), end) if s == end - 1 or word[s:end] in tokens)
        best = min(starts, key=lambda start: len(splits[start]))
        splits.append([*splits[best], word[best:end]])
    return splits[-1]


def compression(at: Trial, found: Sweep[Learned]) -> dict[str, float]:
    """Plots bytes per token against the number of merges, and returns the last value."""
    text, merges = at.world.held_out, found.chosen.size
    at.run.axes("bytes per token", x="merges")
    for size in (size for size in (0, 10, 30, 100) if size < merges):
        at.metric("bytes per token", bytes_per_token(text, found.chosen, size), step=size)
    last = bytes_per_token(text, found.chosen, merges)
    at.metric("bytes per token", last, step=merges)
    return {"bytes per token": last}


def look_at(run: Run, world: World) -> None:
    """Tests a larger vocabulary: bytes per token, lost words, round trips and example tokens."""
    bpe = ByteBPE(train(world.seen, run.option("merges", run.pick(smoke=50, quick=1000, full=10_000))))
    run.metric("tokens", len(bpe))
    code = data.code()[: run.pick(smoke=2000, quick=50_000, full=None)]
    for name, text in {"held-out prose": world.held_out, "source code": code}.items():
        run.metric(f"bytes per token of {name}", len(text.encode()) / len(bpe.encode(text)))
    if run.wants(OPEN):
        count_lost_words(run, bpe, world)
    if run.wants(LOSSLESS):
        try_round_trips(run, bpe, [world.held_out, code, world.held_out.encode()])
    show(run, bpe, world.held_out, code)


def count_lost_words(run: Run, bpe: ByteBPE, world: World) -> None:
    frequent, words = Counter(split(world.seen)), split(world.held_out)
    few = {word for word, _ in frequent.most_common(len(bpe))}
    come_back: dict[str, Callable[[str], bool]] = {
        "byte-level BPE": lambda word: bpe.decode(bpe.encode(word)) == word,
        "all training words": frequent.__contains__,
        "as many words as tokens": few.__contains__,
    }
    lost = {name: 1 - sum(map(known, words)) / len(words) for name, known in come_back.items()}
    for name, share in lost.items():
        run.metric("words lost", share, arm=name)
    known = ("byte-level BPE", "all training words")
    run.claim(OPEN, {f"words lost, {name}": lost[name] for name in known})


def try_round_trips(run: Run, bpe: ByteBPE, texts: list[str | bytes]) -> None:
    draw, changed, beyond = Random(run.seed), 0, 0
    for _ in range(run.pick(smoke=100, quick=5000, full=100_000)):
        texts.append(draw.randbytes(draw.randrange(40)))
        texts.append("".join(chr(draw.randrange(sys.maxunicode + 1)) for _ in range(draw.randrange(20))))
    for text in texts:
        ids = bpe.encode(text)
        beyond += sum(not 0 <= i < len(bpe) for i in ids)
        changed += text != (bpe.decode(ids) if isinstance(text, str) else bpe.decode_bytes(ids))
    run.metric("texts sent there and back", len(texts))
    run.claim(LOSSLESS, {"texts changed by the round trip": changed, "ids without a token": beyond})


def show(run: Run, bpe: ByteBPE, prose: str, code: str) -> None:
    samples = {
        "held-out prose": prose[:700],
        "source code": code[:400],
        "other text": "Grüße aus Zürich, 你好, naïve 🙂 ½ x² 2019-02-14 don't DON'T",
    }
    parted = []
    for name, text in samples.items():
        tokens = [bpe.tokens[i] for i in bpe.encode(text)]
        shown = "|".join(token.decode("utf-8", "backslashreplace") for token in tokens)
        parted.append(f"{name}: {len(text.encode())} bytes, {len(tokens)} tokens\n\n{shown}\n")
    run.text(
        "tokens",
        "\n".join(parted),
        caption="Each token is the text between two bars. \\x.. is a single byte.",
    )
    rows = [(i - 255, repr(bpe.tokens[i].decode("utf-8", "replace"))) for i in range(256, len(bpe))]
    run.table("merges", ("merge", "token"), rows[:40], caption="The first 40 merges.")
