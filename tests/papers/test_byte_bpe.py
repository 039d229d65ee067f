"""Byte-pair encoding compared with the `tokenizers` package and with slow implementations, and round trips
of random texts.
"""

from __future__ import annotations

import importlib
import json
import sys
import unicodedata
from collections import Counter
from itertools import combinations, pairwise
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.papers import byte_bpe
from readtrack.papers.byte_bpe import GPT2_TOKENS, ByteBPE, split, train, train_slowly
from readtrack.papers.byte_bpe.rust import rust_tokenizer
from readtrack.papers.byte_bpe.training import Pairs
from readtrack.papers.byte_bpe.words import BYTES, CHARACTERS, visible
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.byte_bpe.experiment")  # the hook has the same name

TEXT = data.text()[:60_000]
MERGES = train(TEXT, 400)
BPE = ByteBPE(MERGES)
GPT2_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False)

FEW_LETTERS = ByteBPE(train(" ".join("".join(Random(i).choices("abc", k=9)) for i in range(40)), 60))
RUST = rust_tokenizer(BPE.tokens, BPE.ranks)

# Characters in the Unicode versions of both Python and the package, without surrogates.
ANY = st.characters(exclude_categories=("Cs", "Cn"))
# Characters that affect how a text is split.
TRICKY = st.sampled_from("aZ'stdm é_ß中一½²Ⅷ٣𝟘𝒜🙂\t\n\r\x1c\x1f\x85\xa0\u2003\u3000\u200b.-!")


def their_split(text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in GPT2_SPLIT.pre_tokenize_str(text)]


# GPT-2's byte table and pattern


def test_the_table_is_gpt2s():
    theirs = bytes_to_unicode()  # its order is the order of ids in GPT-2's vocabulary
    assert list(theirs) == list(BYTES)
    assert list(theirs.values()) == list(CHARACTERS)
    assert sorted(CHARACTERS) == sorted(GPT2_SPLIT.alphabet())
    assert visible(b" the\n") == "ĠtheĊ"
    assert GPT2_TOKENS == 50_257


@settings(max_examples=300, deadline=None)
@given(st.text(TRICKY | ANY))
def test_words_are_gpt2s(text):
    words = split(text)
    assert "".join(words) == text
    assert words == their_split(text)


def test_every_character_is_in_its_class():
    """Each character stands before and after a letter, a digit, a sign and a space."""
    known = [
        c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cs", "Cn", "Co")
    ]
    text = "".join(f"a{c}1{c}!{c}a {c}{c} a" for c in known[::7])
    assert split(text) == their_split(text)


def test_words_of_a_long_text():
    assert split(TEXT) == their_split(TEXT)


# Training


def test_merges_are_the_packages():
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([TEXT], vocab_size=256 + 400, min_frequency=0, show_progress=False)
    model = json.loads(tokenizer.to_str())["model"]
    assert [tuple(pair) for pair in model["merges"]] == [
        (visible(BPE.tokens[left]), visible(BPE.tokens[right])) for left, right in MERGES
    ]
    assert model["vocab"] == {visible(token): i for i, token in enumerate(BPE.tokens)}


@pytest.mark.parametrize("seed", range(5))
def test_merges_are_the_packages_where_most_pairs_tie(seed):
    draw = Random(seed)
    words = ["".join(draw.choices("abcé", k=draw.randrange(1, 9))) for _ in range(60)]
    text = " ".join(words)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = GPT2_SPLIT
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 40, initial_alphabet=GPT2_SPLIT.alphabet(), show_progress=False, min_frequency=0
    )
    tokenizer.train_from_iterator([text], trainer)
    theirs = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = train(text, len(theirs))
    tokens = ByteBPE(merges).tokens
    assert [[visible(tokens[left]), visible(tokens[right])] for left, right in merges] == theirs


@settings(max_examples=300, deadline=None)
@given(st.text("ab ", max_size=60), st.integers(0, 30))
def test_training_is_the_papers_loop(text, merges):
    assert train(text, merges) == train_slowly(text, merges)


def test_training_on_prose_is_the_papers_loop():
    assert train(TEXT[:15_000], 150) == train_slowly(TEXT[:15_000], 150)


def test_the_papers_example():
    """The words of algorithm 1 with their counts, without the end-of-word symbol."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    text = "\n".join(word for word, times in words.items() for _ in range(times))
    assert ByteBPE(train(text, 4)).tokens[256:] == [b"es", b"est", b"lo", b"low"]


def test_training_stops_when_no_pair_is_left_to_merge():
    assert [ByteBPE(train(text, 9)).tokens[256:] for text in ("", "a", "ab ab")] == [[], [], [b"ab", b" ab"]]


def test_two_ways_to_one_token():
    """a+bc and ab+c spell the same bytes, so they are one token, as in the paper, where symbols are
    strings.
    """
    a, b, c = (BYTES.index(letter) for letter in b"abc")
    ab, bc, abc = 256, 257, 258
    bpe = ByteBPE([(a, b), (b, c), (ab, c), (a, bc)])
    assert bpe.tokens[256:] == [b"ab", b"bc", b"abc"]
    assert bpe.encode("abc") == [abc]
    assert bpe.merge_slowly(b"abc") == (abc,)


# Encoding


def test_ids_are_the_packages():
    tokenizer = rust_tokenizer(BPE.tokens, BPE.ranks)
    text = data.text()[300_000:330_000] + "Grüße, 你好 🙂 ½ x² don't\t\n  end  "
    assert BPE.encode(text) == tokenizer.encode(text).ids
    tokenizer.decoder = decoders.ByteLevel()
    assert tokenizer.decode(BPE.encode(text)) == BPE.decode(BPE.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(st.text(ANY | st.sampled_from("the in er")))
def test_ids_of_any_text_are_the_packages(text):
    assert BPE.encode(text) == RUST.encode(text).ids


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"a", b"b", b"c", b" the", b"in", b"-"]), max_size=30).map(b"".join))
def test_the_heap_merges_as_gpt2s_loop(word):
    for bpe in (BPE, FEW_LETTERS):
        assert bpe.merge(word) == bpe.merge_slowly(word)


def test_a_long_word_takes_little_time():
    """Scanning the word again after each merge would take hours."""
    word = "ab" * 50_000 + "-" * 50_000
    assert BPE.decode(BPE.encode(word)) == word


def test_a_token_per_byte_without_merges():
    assert ByteBPE([]).encode("é!") == [BYTES.index(byte) for byte in "é!".encode()]
    assert len(ByteBPE([])) == 256


# Round trips; the experiment makes 10,000 more


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters()))
def test_any_string_comes_back(text):
    """Includes surrogates, which UTF-8 cannot encode."""
    ids = BPE.encode(text)
    assert all(0 <= i < len(BPE) for i in ids)
    assert BPE.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(st.binary())
def test_any_bytes_come_back(text):
    assert BPE.decode_bytes(BPE.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_text_has_the_tokens_of_its_bytes(text):
    assert BPE.encode(text) == BPE.encode(text.encode())


def test_a_sample_that_stops_inside_a_character_can_be_read():
    ids = ByteBPE([]).encode("né")
    assert ByteBPE([]).decode(ids[:-1]) == "n\ufffd"


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    assert digest(toy) == "3bfd438d4819"
    record = run_experiment(byte_bpe)
    curves = record.curves["bytes per token"]
    assert curves.keys() == {"most frequent pair", "random pair"}
    for curve in curves.values():
        steps, values = zip(*curve, strict=True)
        assert (steps, values[0]) == ((0, 10, 30, 50), 1.0)
        assert values == tuple(sorted(values))
    verdicts = {claim["claim"]["name"]: claim["verdict"] for claim in record.claims}
    assert verdicts[toy.LOSSLESS.name] == "held"
    assert [artifact["kind"] for artifact in record.artifacts] == ["text", "table"]


@pytest.mark.parametrize(
    ("broken", "ours"),
    [
        ("", "most_frequent"),
        ("shuffled letters", "of_shuffled_letters"),
        ("pairs counted once", "counted_once"),
    ],
)
def test_the_training_text_of_each_arm(part_of_run, monkeypatch, broken, ours):
    """Every arm learns from the training text, with the same number of merges."""
    made = {}

    def watched(choose, at, count):
        made[at.name] = choose.__name__, count, len(choose(at, count))
        assert at.world.held_out not in at.world.seen
        assert len(at.world.seen) + len(at.world.held_out) == 20_000
        return toy.Learned(lambda text, size: 1 + len(text) - size, count)

    monkeypatch.setattr(toy, "by_merges", watched)
    toy.experiment(part_of_run(broken=broken))
    assert made == {"most frequent pair": (ours, 50, 50), "random pair": ("random_merges", 50, 50)}


def test_pairs_are_counted_before_any_is_merged(part_of_run):
    world = toy.World(seen="abab abab ab ab", held_out="")
    at = Trial(Workshop(part_of_run(), world=world), Work(arm="ours"), arm="ours")
    a, b, space = (BYTES.index(letter) for letter in b"ab ")
    assert toy.counted_once(at, 2) == [(a, b), (space, a)]


def test_the_rival_splits_words_into_as_few_tokens_as_possible():
    assert toy.fewest_tokens(b"abcd", {b"ab", b"abc", b"cd"}) == [b"ab", b"cd"]
    assert toy.fewest_tokens(b"abcde", {b"abc", b"bcde"}) == [b"a", b"bcde"]  # not the longest match first
    assert toy.fewest_tokens(b"", {b"ab"}) == []


def test_the_rival_prunes_substrings_that_others_replace(part_of_run):
    """With these words, pruning finds the best set of substrings."""
    assert toy.tokens_saved(Counter({b"abab": 3}), {b"ab", b"aba", b"ba"}) == {b"ab": 6, b"aba": 0, b"ba": 0}
    text = " ".join(["token"] * 9 + ["kent"] * 5 + ["toe"] * 4)
    words = toy.count_words(text)
    substrings = {word[i:j] for word in words for i in range(len(word)) for j in range(i + 2, len(word) + 1)}
    at = Trial(Workshop(part_of_run(), world=toy.World(text, "")), Work(arm="ours"), arm="ours")
    for size in (1, 2):
        found = toy.by_substrings(at, size)
        assert found.size == size
        assert found.count(text, size) == min(
            sum(len(toy.fewest_tokens(word, set(tokens))) * times for word, times in words.items())
            for tokens in combinations(substrings, size)
        )


def test_the_control_draws_a_pair_as_often_as_it_occurs():
    pairs, draw = Pairs("ab" * 60 + "cd" * 30 + "ef" * 10), Random(0)
    found = Counter(toy.any_pair(pairs, draw) for _ in range(2000))
    total = sum(pairs.counts.values())
    for pair, count in pairs.counts.items():
        expected = 2000 * count / total
        assert abs(found[pair] - expected) < 5 * expected**0.5 + 1


def test_a_cache_that_forgets_gives_the_same_ids():
    bpe = ByteBPE(MERGES)
    first = bpe.encode(TEXT[:500])
    assert bpe._known.cache_info().currsize > 0
    bpe.forget()
    assert bpe._known.cache_info().currsize == 0
    assert bpe.encode(TEXT[:500]) == first


@pytest.mark.slow
def test_every_variant_is_right(check_benchmark):
    training, first, again = check_benchmark(byte_bpe)
    assert (training.name, first.name, again.name) == ("training", "encoding", "encoding")
    assert (first.axes["words"], first.fresh, again.fresh) == ("first", True, False)
    (text,) = training.inputs(torch.Generator())
    assert text.dtype == torch.uint8


def test_counts_stay_right_while_pairs_are_merged():
    pairs = Pairs(TEXT[:5000])
    for pair in train(TEXT[:5000], 50):
        pairs.merge(pair)
        counts: Counter[tuple[int, int]] = Counter()
        for word, times in zip(pairs.words, pairs.times, strict=True):
            for two in pairwise(word):
                counts[two] += times
        assert {two: count for two, count in pairs.counts.items() if count} == dict(counts)
