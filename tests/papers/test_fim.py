"""The transformation compared with list slices, texts with their distribution, training data, and the
control arms.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter

import pytest
import torch

from readtrack.checks.constants import digest
from readtrack.papers.fim import fill_in_the_middle, restored
from readtrack.papers.gpt2 import GPT2
from readtrack.runs.table import Table
from readtrack.runs.trial import Trial, Work, Workshop

fim = importlib.import_module("readtrack.papers.fim")
its = importlib.import_module("readtrack.papers.fim.experiment")
toy = importlib.import_module("readtrack.papers.fim.texts")


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("turned", [False, True])
def test_every_cut_of_a_text(length, turned):
    """All pairs of cuts, including empty parts."""
    pairs = [(a, b) for a in range(length + 1) for b in range(a, length + 1)]
    text = torch.arange(length) + its.NAMES
    texts, cuts = text.expand(len(pairs), -1), torch.tensor(pairs)
    spm = torch.full((len(pairs),), turned)
    found = fill_in_the_middle(texts, cuts, spm)
    letters = text.tolist()
    for row, (a, b) in zip(found, pairs, strict=True):
        prefix, middle, suffix = letters[:a], letters[a:b], letters[b:]
        psm = [its.PRE, *prefix, its.SUF, *suffix, its.MID, *middle, its.EOT]
        other = [its.PRE, its.SUF, *suffix, its.MID, *prefix, *middle, its.EOT]
        assert row.tolist() == (other if turned else psm)
        assert restored(row) == letters


@pytest.mark.parametrize(
    "tokens", [[5, 6, 7], [0, 1, 2, 5], [0, 2, 1, 3], [5, 0, 1, 2, 3], [0, 1, 2, 3, 5], [1, 0, 2, 3]]
)
def test_texts_that_are_not_reordered_are_refused(tokens):
    with pytest.raises(ValueError, match="part"):
        restored(torch.tensor(tokens))


def test_texts_follow_their_law():
    texts, begins, language = its.texts_of(3000, torch.Generator().manual_seed(0))
    place = torch.arange(its.LENGTH)
    neutral = texts < its.FIRST
    assert torch.equal(neutral, place < begins[:, None])
    assert torch.equal(texts == toy.COLON, place == begins[:, None] - 1)
    spoken = (texts - its.FIRST).div(its.LETTERS, rounding_mode="floor")
    behind = (place >= begins[:, None] + its.HOLE).long()
    assert ((spoken == (language[:, None] + behind) % toy.LANGUAGES) | neutral).all()
    assert set(begins.tolist()) == set(range(2, its.LENGTH - its.HOLE - toy.LAST + 1))
    assert Counter(language.tolist()).keys() == set(range(toy.LANGUAGES))
    assert texts.max() < its.VOCAB


def test_the_least_loss_is_the_entropy_of_the_texts():
    """The entropy is the negative mean log-probability of the texts, without their first letter."""
    _, begins, _ = its.texts_of(20_000, torch.Generator().manual_seed(0))
    places = len(begins.unique())
    nats = (begins - 2) * math.log(8) + (its.LENGTH - begins) * math.log(4) + math.log(8 * places)
    assert its.least_loss() == pytest.approx(nats.double().mean().item() / (its.LENGTH - 1), rel=0.005)


def test_batches_hold_as_many_reordered_texts_as_they_should():
    draw = torch.Generator().manual_seed(0)
    assert not (its.batch_of(50, its.Recipe(0.0), draw) == its.SUF).any()
    share = (its.batch_of(2000, its.Recipe(0.5), draw) == its.SUF).any(1).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.05)
    whole = its.batch_of(2000, its.Recipe(1.0), draw)
    assert (whole == its.MID).any(1).all()
    assert (whole[:, 1] == its.SUF).double().mean().item() == pytest.approx(0.5, abs=0.1)  # SPM, or no prefix
    plain = its.batch_of(1, its.Recipe(0.0), draw)[0]
    assert plain[its.LENGTH :].tolist() == [its.EOT, its.PRE, its.PRE, its.PRE]


def test_a_suffix_of_another_text_is_of_another_language():
    whole = its.batch_of(400, its.Recipe(1.0, mixed=True), torch.Generator().manual_seed(0))
    same = 0
    for row in whole:
        letters = torch.tensor(restored(row)) - its.FIRST
        spoken = letters[letters >= 0].div(its.LETTERS, rounding_mode="floor")
        expected = [(spoken[0] + (i >= its.HOLE)) % toy.LANGUAGES for i in range(len(spoken))]
        same += spoken.tolist() == expected
    assert same < 320


def test_the_loss_counts_all_parts_up_to_the_end():
    network = GPT2(its.VOCAB, context=22, model=12, heads=3, layers=1, std=0.5)
    text = its.batch_of(6, its.Recipe(0.5), torch.Generator().manual_seed(0))
    logits = network(text[:, :-1]).log_softmax(-1)
    chosen = []
    for row, scores in zip(text.tolist(), logits, strict=True):
        chosen += [-scores[i - 1, row[i]] for i in range(1, row.index(its.EOT) + 1)]
    assert its.loss_of(network, text).item() == pytest.approx(torch.stack(chosen).mean().item(), rel=1e-5)


def test_the_set_up_is_the_stated_one():
    assert digest(its) == "f071fc717d1a"


def test_prompts_end_where_the_middle_begins():
    prefix, suffix, edge = torch.tensor([[9, 8]]), torch.tensor([[7]]), torch.ones(1, 1, dtype=torch.long)
    psm = fill_in_the_middle(torch.tensor([[9, 8, 7]]), torch.tensor([[2, 2]]), torch.tensor([False]))
    spm = fill_in_the_middle(torch.tensor([[9, 8, 7]]), torch.tensor([[2, 2]]), torch.tensor([True]))
    assert torch.equal(its.PROMPTS["PSM"](prefix, suffix, edge), psm[:, :-1])
    assert torch.equal(its.PROMPTS["SPM"](prefix, suffix, edge), spm[:, :-1])


class Oracle(GPT2):
    """Infers the language of a gap from the suffix, and gets the last `wrong` letters wrong."""

    def __init__(self, wrong):
        super().__init__(its.VOCAB, context=22, model=4, heads=1, layers=1)
        self.wrong = wrong

    def generate(self, given, count, generator, *, temperature):
        first = given[torch.arange(len(given)), (given == its.SUF).int().argmax(1) + 1]
        language = (first - its.FIRST).div(its.LETTERS, rounding_mode="floor") - 1
        spoken = language[:, None] + (torch.arange(count) >= count - self.wrong)
        return torch.cat((given, its.FIRST + spoken % toy.LANGUAGES * its.LETTERS), 1)


@pytest.mark.parametrize(("wrong", "share"), [(0, 1.0), (1, 0.0)])
def test_a_gap_is_filled_if_all_letters_are_right(part_of_run, wrong, share):
    run = part_of_run()
    for way in ("PSM", "SPM"):
        assert its.fill(run, Oracle(wrong), way)[0] == share


def test_validation_texts_decide_between_the_prompts(part_of_run, monkeypatch):
    found, asked = {"PSM": 0.2, "SPM": 0.7}, set()

    def fill(run, network, way, part):
        asked.add(part)
        return found[way], []

    monkeypatch.setattr(its, "fill", fill)
    at = Trial(Workshop(part_of_run()), Work(arm="a"), arm="a")
    assert its.train(at, its.Recipe(0.5), 0.01)[1].way == "SPM"
    found["PSM"] = 0.8
    assert its.train(at, its.Recipe(0.5), 0.01)[1].way == "PSM"
    assert asked == {"choose"}


def test_the_gain_is_over_the_plain_models_own_prompts():
    ours = {"PSM": 0.9, "SPM": 0.1, "suffix, then prefix": 0.2, "prefix alone": 0.3, "own way": 0.9}
    plain = {"PSM": 0.0, "SPM": 0.0, "suffix, then prefix": 0.4, "prefix alone": 0.125, "own way": 0.0}
    found = its.relations(Table(rows={"half reordered": ours, "none": plain}))[""]
    assert [found[bound.metric] for bound in its.FILLS.rule[:2]] == pytest.approx([0.775, 0.5])
    assert found[its.FILLS.guards[0].metric] == 0.125


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["", "suffix of another text", "left-to-right reranking"])
def test_the_arms_match_their_names(run_experiment, monkeypatch, broken):
    asked, batch_of = set(), its.batch_of

    def watched(count, recipe, generator):
        asked.add(recipe)
        return batch_of(count, recipe, generator)

    monkeypatch.setattr(its, "batch_of", watched)
    record = run_experiment(fim, broken=broken)
    ours = {
        "suffix of another text": {
            its.Recipe(0.5, mixed=True),
            its.Recipe(0.5),
        },  # validation data are never mixed
        "left-to-right reranking": {its.Recipe(0.0, ways=("reranked",))},
    }
    assert asked == {its.Recipe(0.0)} | ours.get(broken, {its.Recipe(0.5)})
    assert {artifact["name"] for artifact in record.artifacts} == {
        "infilled texts",
        "infilling accuracy by prompt",
    }


class Speaker(GPT2):
    """Knows that the letters after a gap are in the next language. Its candidates are in all languages in
    turn, without regard to the prefix.
    """

    def __init__(self):
        super().__init__(its.VOCAB, context=22, model=4, heads=1, layers=1)

    def generate(self, given, count, generator, *, temperature=1.0):
        assert temperature == 1.0
        language = torch.arange(len(given)) % its.CANDIDATES % toy.LANGUAGES
        return torch.cat((given, its.FIRST + language[:, None].expand(-1, count) * its.LETTERS), 1)

    def forward(self, ids):
        language = (ids - its.FIRST).div(its.LETTERS, rounding_mode="floor")
        language[:, its.HOLE :] += ids[:, : -its.HOLE] == toy.COLON  # at the last letter of the gap
        wanted = its.FIRST + language % toy.LANGUAGES * its.LETTERS
        place = torch.arange(its.VOCAB)
        likely = (place >= wanted[..., None]) & (place < wanted[..., None] + its.LETTERS)
        return 5.0 * (likely & (ids >= its.FIRST)[..., None])


def test_the_rival_keeps_the_candidate_that_agrees_with_the_suffix(part_of_run):
    assert its.CANDIDATES == 16
    assert its.fill(part_of_run(), Speaker(), "reranked")[0] == 1.0


def test_the_rival_scores_every_token_of_the_whole_text():
    """Compared with a loop over texts and candidates. The prefixes differ, the suffixes too."""
    network = GPT2(its.VOCAB, context=22, model=12, heads=3, layers=1, std=0.5)
    prefix, suffix = torch.randint(4, its.VOCAB, (3, 4)), torch.randint(4, its.VOCAB, (3, 5))
    found = its.reranked(network, prefix, suffix, torch.Generator().manual_seed(0))
    starts = prefix.repeat_interleave(its.CANDIDATES, 0)
    candidates = network.generate(starts, its.HOLE, torch.Generator().manual_seed(0))[:, 4:]
    for row, of_row in enumerate(candidates.split(its.CANDIDATES)):
        texts = [torch.cat((prefix[row], middle, suffix[row])) for middle in of_row]
        losses = [network.loss(text[None]).item() for text in texts]
        assert torch.equal(found[row], of_row[losses.index(min(losses))])


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(fim)] == ["reordering"]
