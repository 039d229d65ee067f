"""RoBERTa compared with transformers', positions and padding, and the masks of several passes."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from transformers import RobertaConfig, RobertaForMaskedLM

from readtrack.checks.constants import digest
from readtrack.papers import roberta
from readtrack.papers.bert import MaskedModel
from readtrack.papers.roberta import PADDING, RoBERTa, from_released
from readtrack.papers.roberta.model import LARGE
from readtrack.papers.roberta.topics import Topics
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.roberta.experiment")  # the hook has the same name


def reference(vocab: int, context: int, model: int, heads: int, layers: int) -> RobertaForMaskedLM:
    config = RobertaConfig(
        vocab_size=vocab,
        max_position_embeddings=context + 2,
        hidden_size=model,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=4 * model,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        attn_implementation="eager",
    )
    return RobertaForMaskedLM(config).eval()


def make(size: tuple[int, ...]) -> MaskedModel:
    vocab, context, model, heads, layers = size
    trunk = RoBERTa(vocab, context=context, model=model, heads=heads, layers=layers, dropout=0.0)
    return MaskedModel(trunk)


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with the reference's names, written independently of `weights.py`."""
    theirs = {}
    for name, weight in weights.items():
        name = name.replace("head.norm", "lm_head.layer_norm").replace("head.dense", "lm_head.dense")
        name = "lm_head.bias" if name == "head.bias" else name
        name = name.replace("bert.tokens", "roberta.embeddings.word_embeddings")
        name = name.replace("bert.positions", "roberta.embeddings.position_embeddings")
        name = name.replace("bert.segments", "roberta.embeddings.token_type_embeddings")
        name = name.replace("bert.norm.", "roberta.embeddings.LayerNorm.")
        name = name.replace("bert.blocks", "roberta.encoder.layer")
        name = name.replace("norms.0", "attention.output.LayerNorm").replace("norms.1", "output.LayerNorm")
        name = name.replace("feed_forward.0", "intermediate.dense").replace("feed_forward.2", "output.dense")
        for part in ("query", "key", "value"):
            name = name.replace(f"attention.{part}", f"attention.self.{part}")
        if ".attention.output." in name and "LayerNorm" not in name:
            name = name.replace("attention.output", "attention.output.dense")
        if "pooler" not in name:
            theirs[name] = weight
    theirs["lm_head.decoder.weight"] = weights["bert.tokens.weight"]
    theirs["lm_head.decoder.bias"] = weights["head.bias"]
    return theirs


@pytest.mark.parametrize("size", [(13, 9, 12, 3, 2), (31, 16, 20, 5, 3)])
def test_masked_words_match_transformers(assert_parity, size):
    """The texts have different lengths, and padding has its own position."""
    ours, theirs = make(size).double(), reference(*size).double()
    tokens = size[1]
    ids = torch.randint(2, size[0], (3, tokens))
    visible = torch.arange(tokens) < torch.tensor([tokens, tokens - 1, 2])[:, None]
    ids = ids.masked_fill(~visible, PADDING)
    weights = {name: torch.randn(weight.shape) / 3 for name, weight in ours.named_parameters()}

    def their_results(given: dict[str, Tensor]) -> Tensor:
        attention = {"attention_mask": visible.double()}
        return functional_call(theirs, as_reference(given), (ids,), attention).logits[visible]

    assert_parity(
        lambda given: functional_call(ours, given, (ids,), {"visible": visible})[visible],
        their_results,
        (),
        weights=weights,
        rtol=1e-8,
        atol=1e-9,
    )


def test_released_weights_speak_as_in_transformers():
    theirs, ours = reference(31, 16, 20, 5, 3), make((31, 16, 20, 5, 3)).eval()
    missing = ours.load_state_dict(from_released(theirs.state_dict()), strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys == ["bert.pooler.weight", "bert.pooler.bias"]
    ids = torch.randint(2, 31, (2, 16))
    assert_close(ours(ids), theirs(ids).logits)
    for wrong in ("lm_head.tail.weight", "roberta.embeddings.colour.weight", "x"):
        with pytest.raises(ValueError, match="RoBERTa has no parameter"):
            from_released({wrong: torch.zeros(1)})


def test_parameters_are_the_released_ones():
    with torch.device("meta"):
        base, large = RoBERTa(), RoBERTa(**LARGE)
    assert sum(weight.numel() for weight in base.parameters()) == 124_645_632
    assert large.pooler.out_features == 1024
    assert {part.eps for part in base.modules() if hasattr(part, "eps")} == {1e-5}
    assert {part.p for part in base.modules() if isinstance(part, nn.Dropout)} == {0.1}


def test_positions_are_counted_after_the_filling():
    model = RoBERTa(9, context=5, model=4, heads=1, layers=1)
    ids = torch.tensor([[5, 6, 7, PADDING], [PADDING, 5, PADDING, 6]])
    assert model.position_ids(ids).tolist() == [[2, 3, 4, 1], [1, 2, 1, 3]]


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_masks_are_stored_or_fresh(copies):
    corpus = torch.randint(48, (50, 10))
    masks = toy.Masks(corpus, copies, torch.Generator().manual_seed(1))
    passes = [masks.of_pass(index).ids for index in range(6)]
    different = {tuple(ids.flatten().tolist()) for ids in passes}
    assert len(different) == (copies or 6)
    assert len(masks.stored) == copies
    if copies:
        assert torch.equal(passes[0], passes[copies])


@pytest.mark.parametrize(
    ("broken", "copies", "dropout"),
    [
        ("", 0, 0.0),
        ("one static mask", 1, 0.0),
        ("two static masks", 2, 0.0),
        ("one static mask with dropout", 1, 0.1),
    ],
)
def test_arms_differ_in_their_masks_alone(part_of_run, monkeypatch, broken, copies, dropout):
    made, steps_of = {}, {}

    def watched(at, recipe, rate):
        steps_of[at.name], batches = recipe.batches(at)
        assert sum(1 for _ in batches) == steps_of[at.name]
        made[at.name] = recipe.copies, recipe.dropout
        return 1.0, toy.Trained(toy.network(), recipe.copies)

    monkeypatch.setattr(toy, "train", watched)
    toy.compare_masks(part_of_run(broken=broken))
    assert made == {"fresh masks": (copies, dropout), "one mask": (1, 0.0), "ten masks": (10, 0.0)}
    assert set(steps_of.values()) == {2}


@pytest.mark.parametrize(
    ("broken", "mixed"), [("", [False] * 4), ("longer on mixed texts", [False, True, True, True])]
)
def test_the_longer_training_reads_new_texts_at_each_step(part_of_run, monkeypatch, broken, mixed):
    seen = {}

    def watched(at, recipe, rate):
        count, batches = recipe.batches(at)
        read = [masked.original for masked in batches]
        assert len({tuple(ids.flatten().tolist()) for ids in read}) == count
        # A text of the language has 7.6 different words on average, a mixed one 8.8.
        own = [
            torch.nn.functional.one_hot(ids, toy.WORDS).amax(1).sum(1).float().mean().item() for ids in read
        ]
        seen[at.name] = [words > 8.2 for words in own]
        return 1.0, toy.Trained(toy.network(), 0)

    monkeypatch.setattr(toy, "train", watched)
    toy.train_longer(part_of_run(broken=broken))
    assert seen == {"longer training": mixed, "shorter training": [False]}


def test_topics_are_found_without_masks():
    """Two topics with disjoint words. One visible word reveals the topic, and a mask token adds nothing."""
    corpus = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 1], [3, 4, 5, 4], [5, 3, 4, 3]] * 5)
    topics = Topics(corpus, 6, 2, torch.Generator().manual_seed(1))
    assert_close(topics.words.sum(1), torch.ones(2))
    masked = topics(torch.tensor([[6, 0, 0, 1]])).softmax(-1)[0, 0]
    assert_close(masked, topics.words[topics.words[:, 0].argmax()], atol=1e-3, rtol=0)


def test_a_visible_word_stays_or_was_replaced():
    """Of the chosen words that are visible, half stay and half are random, as BERT's masks are drawn."""
    topics = Topics(torch.tensor([[0, 1, 2, 3]] * 9), 4, 1, torch.Generator())
    uniform = torch.full((4,), 0.25)
    assert_close(topics(torch.tensor([[4, 2]])).softmax(-1)[0, 0], uniform)
    assert_close(topics(torch.tensor([[4, 2]])).softmax(-1)[0, 1], torch.tensor([1.0, 1.0, 5.0, 1.0]) / 8)


def test_the_rival_takes_the_place_of_fresh_masks(part_of_run, monkeypatch):
    read = []

    def watched(corpus, *rest):
        read.append(corpus)
        return Topics(corpus, *rest)

    monkeypatch.setattr(toy, "Topics", watched)
    run = part_of_run(broken="topics without a network")
    world = toy.World.of(run, texts=20)
    score, fitted = toy.fit_topics(Trial(Workshop(run, world), Work(arm="fresh masks"), arm="fresh masks"))
    assert isinstance(fitted.model, Topics)
    assert score == toy.nats_of(run, fitted.model, world.chosen).mean().item()
    assert all(torch.equal(corpus, world.corpus) for corpus in read)
    assert len(read) == 15


def test_the_best_step_is_kept_and_judged_on_other_texts(part_of_run, monkeypatch):
    """The second loss during training is the lowest, and the test texts are different ones."""
    losses, asked = iter([3.0, 1.0, 2.0, 4.0] * 9), []

    def nats_of(run, model, masked):
        asked.append((model, masked))
        return torch.tensor([next(losses)] * 2)

    monkeypatch.setattr(toy, "nats_of", nats_of)
    toy.train_longer(part_of_run(broken="longer on mixed texts"))
    judged = [len(masked.ids) for _, masked in asked]
    assert judged.count(1000) == 2
    assert set(judged) == {200, 1000}


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "b3a29e7196e1"
    assert (toy.TEXTS, toy.BATCH, toy.PASSES, toy.RATES) == (200, 50, 40, (1e-3, 3e-3, 1e-2))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(roberta)
    assert record.headline_curve == "held-out nats by mask, rate 0.003"
    assert record.curves[record.headline_curve].keys() == {"fresh masks", "one mask", "ten masks"}
    assert [one["name"] for one in record.artifacts] == ["masked words filled in"]
    fresh = next(c for c in record.claims if c["claim"]["name"] == roberta.FRESH.name)
    assert fresh["values"]["copies of the corpus stored, ten masks / fresh masks"] == 10


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(roberta)] == ["a fresh mask"]
