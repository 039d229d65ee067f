"""BERT compared with transformers', statistics of the mask, initial weights, and the toy language."""

from __future__ import annotations

import importlib
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForPreTraining

from readtrack.checks.constants import digest
from readtrack.papers import bert
from readtrack.papers.bert import BERT, LARGE, PreTraining, from_released, mask_tokens
from readtrack.papers.bert.benchmark import cost
from readtrack.plugin import Run, Trial
from readtrack.runs.events import EventWriter
from readtrack.runs.trial import Work, Workshop

toy = importlib.import_module("readtrack.papers.bert.experiment")  # the hook has the same name


def reference(vocab: int, context: int, model: int, heads: int, layers: int) -> BertForPreTraining:
    config = BertConfig(
        vocab_size=vocab,
        max_position_embeddings=context,
        hidden_size=model,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=4 * model,
        attn_implementation="eager",
    )
    return BertForPreTraining(config).eval()


def make(size: tuple[int, ...], **changes: float) -> PreTraining:
    vocab, context, model, heads, layers = size
    settings = {"dropout": 0.0, **changes}
    return PreTraining(BERT(vocab, context=context, model=model, heads=heads, layers=layers, **settings))


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with the reference's names, written independently of `weights.py`."""
    theirs = {}
    for name, weight in weights.items():
        name = name.replace("head.norm", "cls.predictions.transform.LayerNorm")
        name = name.replace("head.dense", "cls.predictions.transform.dense")
        name = name.replace("head.bias", "cls.predictions.bias").replace("next.", "cls.seq_relationship.")
        name = name.replace("bert.tokens", "bert.embeddings.word_embeddings")
        name = name.replace("bert.positions", "bert.embeddings.position_embeddings")
        name = name.replace("bert.segments", "bert.embeddings.token_type_embeddings")
        name = name.replace("bert.norm.", "bert.embeddings.LayerNorm.")
        name = name.replace("bert.pooler", "bert.pooler.dense").replace("bert.blocks", "bert.encoder.layer")
        name = name.replace("norms.0", "attention.output.LayerNorm").replace("norms.1", "output.LayerNorm")
        name = name.replace("feed_forward.0", "intermediate.dense").replace("feed_forward.2", "output.dense")
        for part in ("query", "key", "value"):
            name = name.replace(f"attention.{part}", f"attention.self.{part}")
        if ".attention.output." in name and "LayerNorm" not in name:
            name = name.replace("attention.output", "attention.output.dense")
        theirs[name] = weight
    theirs["cls.predictions.decoder.weight"] = weights["bert.tokens.weight"]
    theirs["cls.predictions.decoder.bias"] = weights["head.bias"]
    return theirs


def randomised(model: nn.Module) -> dict[str, Tensor]:
    """Random values for all parameters, because initial gains of 1 and biases of 0 could hide a mistake."""
    return {name: torch.randn(weight.shape) / 3 for name, weight in model.named_parameters()}


@pytest.mark.parametrize("size", [(13, 9, 12, 3, 2), (7, 5, 6, 1, 1), (31, 16, 20, 5, 3)])
def test_both_tasks_match_transformers(assert_parity, size):
    """The texts have two segments and different lengths."""
    ours, theirs = make(size).double(), reference(*size).double()
    tokens = size[1] - 1
    # The reference has no gradient for the vocabulary's first word, its padding token.
    ids, segment = torch.randint(1, size[0], (3, tokens)), (torch.arange(tokens) > 2).long().expand(3, -1)
    visible = torch.arange(tokens) < torch.tensor([tokens, tokens - 1, 2])[:, None]

    def their_results(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        given = {"token_type_ids": segment, "attention_mask": visible.double()}
        found = functional_call(theirs, as_reference(weights), (ids,), given)
        return found.prediction_logits, found.seq_relationship_logits

    def our_results(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return functional_call(ours, weights, (ids,), {"segment": segment, "visible": visible})

    assert_parity(our_results, their_results, (), weights=randomised(ours), rtol=1e-8, atol=1e-9)


def test_half_precision_is_as_accurate_as_in_transformers(assert_half_precision):
    size = (50, 32, 48, 4, 2)
    ours, theirs, ids = make(size), reference(*size), torch.randint(1, 50, (4, 32))

    def their_results(weights: dict[str, Tensor]) -> Tensor:
        model = theirs.to(weights["next.weight"].dtype)
        return functional_call(model, as_reference(weights), (ids,)).prediction_logits

    assert_half_precision(
        lambda weights: functional_call(ours, weights, (ids,))[0],
        their_results,
        [],
        weights={name: weight / 2 for name, weight in randomised(ours).items()},
    )


def test_released_weights_speak_as_in_transformers():
    theirs, ours = reference(31, 16, 20, 5, 3), make((31, 16, 20, 5, 3)).eval()
    renamed = from_released(theirs.state_dict())
    ours.load_state_dict(renamed)
    ids = torch.randint(31, (2, 16))
    for mine, expected in zip(ours(ids), theirs(ids).to_tuple()[:2], strict=True):
        assert_close(mine, expected)
    trunk = from_released(theirs.bert.state_dict())
    assert trunk.keys() == {name for name in renamed if name.startswith("bert.")}
    for wrong in ("cls.tail", "embeddings.colour.weight", "encoder.layer.0.extra.weight"):
        with pytest.raises(ValueError, match="BERT has no parameter"):
            from_released({wrong: torch.zeros(1)})


def test_parameters_are_the_released_ones():
    with torch.device("meta"):
        base, large = BERT(), BERT(**LARGE)
    assert (toy.parameters(base), toy.parameters(large)) == (109_482_240, 335_141_888)
    assert base.blocks[0].feed_forward[1].approximate == "none"
    assert {part.eps for part in base.modules() if hasattr(part, "eps")} == {1e-12}
    assert {part.p for part in base.modules() if isinstance(part, nn.Dropout)} == {0.1}


def test_weights_begin_cut_off_at_two_deviations():
    model = PreTraining(BERT(500, context=400, model=64, heads=4, layers=2))
    for part in model.modules():
        if isinstance(part, nn.Linear | nn.Embedding) and part.weight.numel() > 1000:
            assert part.weight.std().item() == pytest.approx(0.02 * 0.88, rel=0.05)
            assert part.weight.abs().max() <= 0.04
        if isinstance(part, nn.Linear):
            assert not part.bias.any()
    assert not model.head.bias.any()


def test_losses_are_computed_on_the_chosen_tokens():
    model = make((11, 9, 12, 3, 2), std=0.5).double()
    ids = torch.randint(11, (3, 9))
    masked = mask_tokens(ids, torch.Generator().manual_seed(3), vocab=10, mask=10, rate=0.4)
    logits, _ = model(masked.ids)
    expected = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0][masked.chosen].mean()
    assert_close(model.masked_loss(masked), expected)
    segment, follows = (torch.arange(9) > 4).long().expand(3, -1), torch.tensor([0, 1, 1])
    expected = F.cross_entropy(model(ids, segment=segment)[1], follows)
    assert_close(model.next_loss(ids, segment, follows), expected)


def test_only_causal_is_the_control():
    model, ids = make((11, 9, 12, 3, 2), std=0.5).bert.double(), torch.randint(11, (2, 9))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    assert_close(model(changed, causal=True)[:, :5], model(ids, causal=True)[:, :5])
    assert (model(changed)[:, :5] - model(ids)[:, :5]).abs().amax(2).min() > 1e-6


# The mask


def test_of_the_chosen_eight_in_ten_are_masked():
    """Chi-square with three degrees of freedom. A random token may equal the original one."""
    ids = torch.randint(20, (1000, 40), generator=torch.Generator().manual_seed(1))
    read, chosen, original = mask_tokens(ids, torch.Generator().manual_seed(2), vocab=20, mask=20)
    assert torch.equal(original, ids)
    assert torch.equal(read[~chosen], ids[~chosen])
    at, was = read[chosen], ids[chosen]
    same = ((at == was).sum(), 0.1 + 0.1 / 20)
    other = ((at != was) & (at != 20)).sum(), 0.1 - 0.1 / 20
    cells = [((at == 20).sum(), 0.8), same, other]
    total = chosen.sum().item()
    statistic = sum((count.item() - total * p) ** 2 / (total * p) for count, p in cells)
    assert statistic < 9.21  # 1 % level, two degrees of freedom
    spread = math.sqrt(ids.numel() * 0.15 * 0.85)
    assert abs(total - 0.15 * ids.numel()) < 4 * spread


def test_special_tokens_are_never_chosen_and_something_always_is():
    ids = torch.zeros(4, 6, dtype=torch.long)
    special = torch.ones(4, 6, dtype=torch.bool)
    special[2, 3] = False
    masked = mask_tokens(ids, torch.Generator(), vocab=5, mask=5, special=special, rate=0.0)
    assert masked.chosen.nonzero().tolist() == [[2, 3]]
    special[2, 3] = True
    assert not mask_tokens(ids, torch.Generator(), vocab=5, mask=5, special=special).chosen.any()


# The toy task


def test_arms_differ_as_their_names_state():
    trained = PreTraining(BERT(65, context=10, segments=1, model=64, heads=4, layers=2, dropout=0.0))
    both, left = toy.tagger(trained, causal=False), toy.tagger(trained, causal=True)
    recurrent = toy.tagger(trained, causal=True, recurrent=True)
    ids = torch.randint(64, (2, 10))
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 64
    reaches = [not torch.allclose(m(ids)[:, 0], m(changed)[:, 0]) for m in (both, left, recurrent)]
    assert reaches == [True, False, True]
    assert isinstance(recurrent.lstm, nn.LSTM)
    assert recurrent.lstm.bidirectional
    assert left.lstm is None


def test_the_experiment_runs(run_experiment):
    record = run_experiment(bert)
    assert record.headline_curve == "accuracy over position in the text"
    assert [one["name"] for one in record.artifacts] == ["masked words filled in"]
    curves = record.curves["accuracy over position in the text"]
    assert len(curves) == 5
    assert all(len(curve) == 10 for curve in curves.values())


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(
        folder=tmp_path,
        events=EventWriter(tmp_path),
        device=torch.device("cpu"),
        dtype=torch.float32,
        seed=0,
        budget="smoke",
        settings={},
    )


@pytest.mark.parametrize("broken", ["", "tuned without the right side"])
def test_masks_and_pre_training_of_the_arms(part_of_run, monkeypatch, broken):
    run, made, read = part_of_run(broken=broken), {}, []
    pre_train, forward = toy.pre_train, BERT.forward

    def watched_forward(self, ids, **given):
        read.append(given.get("causal", False))
        return forward(self, ids, **given)

    def pre_trained(at, *, causal, mixed):
        read.clear()
        network = pre_train(at, causal=causal, mixed=mixed)
        assert set(read) == {causal}
        network.trained = causal
        return network

    def watched(at, make, rate):
        tagger = make(at.before)
        weights = at.before.bert.state_dict()
        assert all(torch.equal(weights[name], weight) for name, weight in tagger.bert.state_dict().items())
        made[at.name] = tagger.causal, tagger.lstm is not None, getattr(at.before, "trained", None)
        return 0.5, tagger.to(run.device, run.dtype)

    monkeypatch.setattr(BERT, "forward", watched_forward)
    monkeypatch.setattr(toy, "pre_train", pre_trained)
    monkeypatch.setattr(toy, "tune", watched)
    toy.compare_sides(run)
    assert made == {
        "both sides": (bool(broken), False, False),
        "left to right": (True, False, True),
        "left to right with BiLSTM": (True, True, True),
        "left to right from scratch": (True, False, None),
    }


def test_a_null_run_pre_trains_every_name_from_the_left(run_experiment):
    record = run_experiment(bert, null=True)
    names = {"both sides", "left to right"}
    first = {points[0] for points in record.curves["pre-training loss"].values()}
    assert record.curves["pre-training loss"].keys() >= names
    assert len(first) == len(record.curves["pre-training loss"])


def test_masked_words_are_shown_next_to_the_predictions(part_of_run, monkeypatch):
    run, shown = part_of_run(), []
    language = toy.senses(run.generator("language"), words=toy.WORDS, topics=toy.TOPICS)
    monkeypatch.setattr(run, "text", lambda name, text, *, caption: shown.append((text, caption)))
    toy.filled_in(run, toy.network(trial_of(run)), language, toy.LENGTH)
    text, caption = shown[0]
    assert "33 %" in caption
    for read, was, filled, _ in (one.splitlines() for one in text.rstrip().split("\n\n")):
        assert len(read.split()) == 1 + toy.LENGTH
        assert read.split().count("__") == 2
        at = [column for column in range(len(read)) if read.startswith("__", column)]
        for name, row in (("original", was), ("filled in", filled)):
            assert len(row.removeprefix(name).split()) == 2
            assert all(row[column : column + 2].strip().isdigit() for column in at)


def test_every_arm_begins_from_the_same_weights(run):
    first, again = (toy.network(trial_of(run)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["bert.tokens.weight"].std().item() == pytest.approx(0.0693 * 0.88, rel=0.05)
    assert digest(toy) == "406729a8c6db"


def language_of(run: Run):
    return toy.senses(run.data("language", "world"), words=toy.WORDS, topics=toy.TOPICS)


def trial_in(run: Run) -> Trial:
    """A trial with a language and a pre-trained model."""
    at = Trial(Workshop(run, language_of(run)), Work(arm="any"), arm="any")
    at.start()
    at.before = toy.network(at)
    return at


def test_the_control_is_pre_trained_to_predict_the_next_word(run, monkeypatch):
    texts, asked = [], []
    at, cross_entropy = trial_in(run), F.cross_entropy
    draw = type(at.world).draw

    def drawn(self, *given):
        texts.append(draw(self, *given))
        return texts[-1]

    def watched(scores, target, **more):
        asked.append(target)
        return cross_entropy(scores, target, **more)

    monkeypatch.setattr(type(at.world), "draw", drawn)
    monkeypatch.setattr(toy.F, "cross_entropy", watched)
    toy.pre_train(at, causal=True)
    assert len(asked) == len(texts) == 2
    for target, (ids, _) in zip(asked, texts, strict=True):
        assert torch.equal(target.view(48, -1), ids[:, 1:])


@pytest.mark.parametrize("causal", [False, True])
def test_all_weights_are_tuned_and_the_pre_trained_ones_kept(run, causal):
    at = trial_in(run)
    before = {name: weight.clone() for name, weight in at.before.bert.state_dict().items()}
    _, found = toy.tune(at, partial(toy.tagger, causal=causal), 0.01)
    assert found.causal == causal
    tuned = found.bert.state_dict()
    moved = [name for name, weight in tuned.items() if not torch.equal(weight, before[name])]
    assert any("tokens" in name for name in moved)
    assert len(moved) > len(before) / 2
    assert all(torch.equal(weight, before[name]) for name, weight in at.before.bert.state_dict().items())


@pytest.mark.parametrize("causal", [False, True])
def test_every_arm_is_looked_at_three_times_while_it_is_tuned(run, monkeypatch, causal):
    at, looks, pick = trial_in(run), [], run.pick

    class Watch:
        def check(self) -> None:
            looks.append(1)

        def best(self):
            return 0.5, toy.tagger(at.before, causal=causal)

    monkeypatch.setattr(Trial, "early_stopping", lambda at, score: Watch())
    monkeypatch.setattr(
        Run, "pick", lambda run, **given: (3, 1) if isinstance(given["smoke"], tuple) else pick(**given)
    )
    toy.tune(at, partial(toy.tagger, causal=causal), 0.01)
    assert len(looks) == 3


def test_accuracy_matches_the_likeliest_topic_at_each_position(run):
    at = trial_in(run)
    ids, topic = toy.judged(run, at.world)

    class Knows(toy.Tagger):
        """Knows every word from the second on."""

        def forward(self, ids):
            said = F.one_hot(topic, toy.TOPICS).double()[:, None].repeat(1, ids.shape[1], 1)
            said[:, 0] = said[:, 0].roll(1, 1)
            return said

    found = toy.accuracy(Knows(at.before.bert, causal=False, recurrent=False), (ids, topic))
    assert found.mean(0).tolist() == [0.0, *[1.0] * (toy.LENGTH - 1)]
    assert len(found) == len(ids)


def trial_of(run: Run) -> Trial:
    at = Trial(Workshop(run), Work(arm="any"), arm="any")
    at.start()
    return at


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(bert, tolerance=1e-7)] == ["masked words"]


def test_the_stated_cost_matches_torchs_count():
    batch, tokens, width, layers, vocab = 2, 5, 12, 2, 11
    model = make((vocab, tokens, width, 3, layers))
    masked = mask_tokens(torch.randint(vocab, (batch, tokens)), torch.Generator(), vocab=vocab, mask=1)
    with FlopCounterMode(display=False) as counter:
        model.masked_loss(masked).backward()
    stated = cost(batch, tokens, int(masked.chosen.sum()), width, layers, vocab, 4)
    assert counter.get_total_flops() == stated["forward+backward"].flops
