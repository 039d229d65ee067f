"""Merges read from a file in GPT-2's format, integers split as in transformers, sums as ids, and the
control arms.
"""

from __future__ import annotations

import importlib
import json

import pytest
import torch
from transformers import GPT2Tokenizer

from readtrack.checks.constants import digest
from readtrack.papers import integer_tokenization
from readtrack.papers.byte_bpe import ByteBPE
from readtrack.papers.byte_bpe.words import visible
from readtrack.papers.gpt2 import GPT2
from readtrack.papers.integer_tokenization import (
    NumberTable,
    cut,
    merges_of_numbers,
    released_file,
)
from readtrack.runs.trial import Trial, Work, Workshop

its = importlib.import_module("readtrack.papers.integer_tokenization.experiment")

NUMBERS = " ".join(str(n * n % 5000) for n in range(400)) + " 1999 2019 2019 2020 100 100 100"
MERGES = merges_of_numbers(f"x = {NUMBERS} # 12a", 60)
BPE = ByteBPE(MERGES)


def as_file(merges: list[tuple[int, int]]) -> list[str]:
    tokens = [visible(token) for token in BPE.tokens]
    return ["#version: 0.2", *(f"{tokens[left]} {tokens[right]}\n" for left, right in merges)]


def test_integers_are_cut_as_by_transformers(tmp_path):
    """Compares with its tokenizer, loaded from files in GPT-2's format."""
    vocab = {visible(token): i for i, token in enumerate(BPE.tokens)} | {"<|endoftext|>": len(BPE)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("\n".join(line.strip() for line in as_file(MERGES)) + "\n")
    theirs = GPT2Tokenizer.from_pretrained(tmp_path)
    table = NumberTable(BPE, 3000)
    for integer in range(0, 3000, 7):
        ids = theirs.encode(str(integer))
        assert BPE.encode(str(integer)) == ids
        assert [i for i in table.encode(torch.tensor([integer]))[0].tolist() if i >= 0] == ids
        assert "".join(cut(BPE, integer)) == str(integer)


def test_merges_are_of_numbers_alone():
    assert {bytes([c]) for token in BPE.tokens[256:] for c in token} <= {bytes([c]) for c in b"0123456789"}
    assert cut(ByteBPE(merges_of_numbers("v2019 in 2019, (2019)", 3)), 2019) == ("2019",)
    assert cut(BPE, 20190) != ("20190",)


def test_the_released_file_is_found_where_transformers_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert released_file("") is None
    kept = tmp_path / "hub" / "models--openai-community--gpt2" / "snapshots" / "abc" / "merges.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("")
    assert released_file("") == kept
    assert released_file(str(tmp_path / "vocab.bpe")) == tmp_path / "vocab.bpe"


def test_sums_as_ids():
    ids, target = its.spelled(torch.tensor([[12, 9], [3, 4]]), lambda n: [3 + int(d) for d in str(n)])
    assert ids.tolist() == [[4, 5, 0, 12, 1, 5, 4], [6, 0, 7, 1, 10, 2, 2]]
    no = its.IGNORED
    assert target.tolist() == [[no, no, no, no, 5, 4, 2], [no, no, no, 10, 2, no, no]]


@torch.no_grad()
def test_an_answer_is_right_if_it_would_be_written():
    """Every token must be the most likely one after the correct prefix, which is equivalent to greedy
    generation.
    """
    torch.manual_seed(0)
    network = GPT2(6, context=12, model=8, heads=2, layers=1, std=1.0)
    pairs = torch.cartesian_prod(torch.arange(1, 7), torch.arange(1, 7))

    def ones(n: int) -> list[int]:
        return [3 + int(bit) for bit in f"{n:b}"]

    right = 0
    for a, b in pairs.tolist():
        question, answer = [*ones(a), 0, *ones(b), 1], [*ones(a + b), 2]
        written = network.generate(torch.tensor([question]), len(answer), torch.Generator(), temperature=0.0)
        right += written[0, len(question) :].tolist() == answer
    assert its.right(network, its.spelled(pairs, ones)).mean().item() == pytest.approx(right / 36)


def test_the_arms_match_their_names():
    bpe = ByteBPE(merges_of_numbers(" ".join(str(n) for n in range(10, 60)) * 3, 50))
    world = its.World(bpe, {}, [*range(60, 120), *range(60)])
    assert [its.digits(world)(n) for n in (12, 47)] == [[4, 5], [7, 10]]
    assert its.scrambled(world)(12) == its.digits(world)(72)
    tokens = its.merged(world)
    assert sum(len(tokens(n)) == 1 for n in range(10, 60)) >= 45
    assert len({tuple(tokens(n)) for n in range(120)}) == 120


def test_the_rival_solves_the_training_sums(part_of_run):
    pairs = {
        "train": torch.tensor([[1, 1], [1, 2], [2, 2], [1, 3], [2, 3]]),
        "choose": torch.tensor([[1, 4], [3, 3], [6, 1]]),
    }
    at = Trial(Workshop(part_of_run(), its.World(None, pairs, [])), Work(arm="digits"), arm="digits")
    wrong, found = its.solve(at, 0.1)
    values = dict(zip(found.numbers.tolist(), found.values.tolist(), strict=True))
    assert values.keys() == {1, 2, 3, 4, 5}  # 6 does not occur
    for number, value in values.items():
        assert value == pytest.approx(values[1] * number)
    assert found.right(pairs["train"]).tolist() == [1.0] * 5
    assert found.right(pairs["choose"]).tolist() == [1.0, 0.0, 0.0]
    assert wrong == pytest.approx(2 / 3)


def test_the_constants_are_pinned():
    assert digest(its) == "c4b621baa9a2"


@pytest.mark.slow
def test_with_gpt2s_file_the_count_is_judged(run_experiment, tmp_path, monkeypatch):
    """No unseen sum occurs with swapped summands in the training data."""
    worlds, made = [], its.world_of
    monkeypatch.setattr(its, "world_of", lambda run, bpe: worlds.append(made(run, bpe)) or worlds[-1])
    file = tmp_path / "vocab.bpe"
    file.write_text("\n".join(line.strip() for line in as_file(MERGES)))
    record = run_experiment(integer_tokenization, merges=str(file))
    [count] = [claim for claim in record.claims if claim["claim"]["name"] == its.COUNT.name]
    assert count["verdict"] == "missed"  # these merges are not GPT-2's
    assert count["values"]["the merges are GPT-2's"] == 1
    assert [artifact["kind"] for artifact in record.artifacts] == ["image", "text", "table"]
    pairs = worlds[0].pairs
    found = {frozenset(pair) for part in pairs.values() for pair in part.tolist()}
    assert len(found) == sum(map(len, pairs.values())) == 50 * 51 // 2


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(integer_tokenization)] == ["integers to ids"]
