"""GPT compared with transformers', the layer for a task, initial weights, dropout, and the toy language."""

from __future__ import annotations

import importlib
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from readtrack.checks.constants import digest
from readtrack.papers import gpt
from readtrack.papers.gpt import GPT, Classifier, framed, from_released, load_released
from readtrack.papers.gpt.benchmark import cost
from readtrack.papers.gpt.experiment import Language
from readtrack.runs.trial import Trial, Work, Workshop

toy = importlib.import_module("readtrack.papers.gpt.experiment")  # the hook has the same name

SIZES = [(13, 9, 12, 3, 2), (7, 5, 6, 1, 1), (31, 16, 20, 5, 3)]


def reference(vocab: int, context: int, model: int, heads: int, layers: int) -> OpenAIGPTLMHeadModel:
    config = OpenAIGPTConfig(
        vocab_size=vocab,
        n_positions=context,
        n_embd=model,
        n_head=heads,
        n_layer=layers,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return OpenAIGPTLMHeadModel(config)


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with the reference's names: the inverse of `weights.py`, written independently."""
    theirs = {"transformer.tokens_embed.weight": weights["tokens.weight"]}
    theirs["lm_head.weight"] = weights["tokens.weight"]
    theirs["transformer.positions_embed.weight"] = weights["positions.weight"]
    names = {"attention.output": "attn.c_proj", "feed_forward.0": "mlp.c_fc", "feed_forward.2": "mlp.c_proj"}
    names |= {"norms.0": "ln_1", "norms.1": "ln_2"}
    for layer in {name.split(".")[1] for name in weights if name.startswith("blocks.")}:
        ours, prefix = f"blocks.{layer}", f"transformer.h.{layer}"
        qkv = [f"{ours}.attention.{part}" for part in ("query", "key", "value")]
        theirs[f"{prefix}.attn.c_attn.weight"] = torch.cat([weights[f"{n}.weight"] for n in qkv]).T
        theirs[f"{prefix}.attn.c_attn.bias"] = torch.cat([weights[f"{n}.bias"] for n in qkv])
        for mine, name in names.items():
            weight = weights[f"{ours}.{mine}.weight"]
            theirs[f"{prefix}.{name}.weight"] = weight.T if weight.ndim == 2 else weight
            theirs[f"{prefix}.{name}.bias"] = weights[f"{ours}.{mine}.bias"]
    return theirs


def make(size: tuple[int, ...], **changes: float) -> GPT:
    vocab, context, model, heads, layers = size
    return GPT(vocab, context=context, model=model, heads=heads, layers=layers, **{"dropout": 0.0, **changes})


def randomised(model: nn.Module) -> dict[str, Tensor]:
    """Random values for all parameters, because initial gains of 1 and biases of 0 could hide a mistake."""
    return {name: torch.randn(weight.shape) / 3 for name, weight in model.named_parameters()}


@pytest.mark.parametrize("size", SIZES)
def test_scores_and_loss_match_transformers(assert_parity, size):
    ours, theirs = make(size).double(), reference(*size).double().eval()
    ids = torch.randint(size[0], (3, size[1] - 1))

    def their_results(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = functional_call(theirs, as_reference(weights), (ids,)).logits
        return logits, -logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).mean()

    def our_results(weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = functional_call(ours, weights, (ids,))
        return logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    assert_parity(our_results, their_results, (), weights=randomised(ours), rtol=1e-8, atol=1e-9)
    assert_close(ours.loss(ids), F.cross_entropy(ours(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


def test_half_precision_is_as_accurate_as_in_transformers(assert_half_precision):
    size = (50, 32, 48, 4, 2)
    ours, theirs, ids = make(size), reference(*size).eval(), torch.randint(50, (4, 32))
    assert_half_precision(
        lambda weights: functional_call(ours, weights, (ids,)),
        lambda w: functional_call(theirs.to(w["tokens.weight"].dtype), as_reference(w), (ids,)).logits,
        [],
        weights={name: weight / 2 for name, weight in randomised(ours).items()},
    )


@pytest.mark.parametrize("bare", [True, False])
def test_released_weights_speak_as_in_transformers(bare):
    theirs = reference(31, 16, 20, 5, 3).eval()
    ours = load_released((theirs.transformer if bare else theirs).state_dict(), heads=5)
    ids = torch.randint(31, (2, 16))
    assert_close(ours(ids), theirs(ids).logits)
    assert from_released(theirs.state_dict()).keys() == ours.state_dict().keys()
    with pytest.raises(ValueError, match="GPT has no parameter lm_tail"):
        from_released({"lm_tail": torch.zeros(1)})


def test_parameters_are_the_released_ones_and_gelu_is_the_approximation():
    with torch.device("meta"):
        whole = GPT()
    assert toy.parameters(whole) == 116_534_784
    assert whole.blocks[0].feed_forward[1].approximate == "tanh"
    assert {part.p for part in whole.modules() if isinstance(part, nn.Dropout)} == {0.1}


def test_weights_begin_as_the_paper_says():
    model = GPT(500, context=400, model=64, heads=4, layers=4)
    classifier = Classifier(model, 300)
    for part in classifier.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            assert part.weight.std().item() == pytest.approx(0.02, rel=0.05)
        if isinstance(part, nn.Linear):
            assert not part.bias.any()


def test_the_order_is_sum_then_normalisation_and_dropout_before_the_sum():
    """With everything dropped, a block normalises its input twice."""
    block, x = gpt.Block(12, 3, dropout=1.0), torch.randn(2, 5, 12)
    assert_close(block(x), F.layer_norm(F.layer_norm(x, (12,)), (12,)))
    block.eval()
    assert not torch.allclose(block(x), F.layer_norm(F.layer_norm(x, (12,)), (12,)))
    model = make((11, 9, 12, 3, 1), dropout=1.0)
    assert_close(model.hidden(torch.randint(11, (2, 5))), torch.zeros(2, 5, 12))


def test_a_token_does_not_see_those_after_it():
    model, ids = make((11, 9, 12, 3, 2), std=0.5).double(), torch.randint(11, (2, 9))
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 11
    assert_close(model(changed)[:, :5], model(ids)[:, :5])
    assert (model(changed)[:, 5:] - model(ids)[:, 5:]).abs().min() > 0
    with pytest.raises(ValueError, match="10 tokens, but the model has 9 positions"):
        model(torch.zeros(1, 10, dtype=torch.long))


def test_the_task_is_read_from_the_last_token_and_the_text_is_still_predicted():
    model = Classifier(make((11, 9, 12, 3, 2), std=0.5), 4).double()
    ids, label = torch.randint(11, (3, 9)), torch.tensor([0, 3, 1])
    assert_close(model(ids), model.output(model.gpt.hidden(ids)[:, -1]))
    task = F.cross_entropy(model(ids), label)
    assert_close(model.loss(ids, label), task + 0.5 * model.gpt.loss(ids))
    assert_close(model.loss(ids, label, auxiliary=0.0), task)
    assert framed(torch.tensor([[1, 2], [3, 4]]), 8, 9).tolist() == [[8, 1, 2, 9], [8, 3, 4, 9]]


def test_it_trains_under_autocast_and_hooks_fire():
    model, ids, called = make((11, 9, 12, 3, 2)), torch.randint(11, (2, 9)), set()
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.add(name))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(ids)
    loss.backward()
    assert_close(loss.float(), model.loss(ids), rtol=0.05, atol=0)
    assert all(weight.grad.isfinite().all() for weight in model.parameters())
    silent = {name for name, _ in model.named_modules()} - called
    assert silent == {"positions", "blocks", "blocks.0.norms", "blocks.1.norms"}


def test_the_language_matches_its_description():
    language = Language.made(torch.Generator().manual_seed(1))
    assert torch.bincount(language.class_of).tolist() == [16] * 8
    assert_close(language.follows.sum(1), torch.ones(8))
    assert sorted(language.follows[0].unique().tolist()) == pytest.approx([0.0, 0.3, 0.7])
    texts, last = language.draw(4000, torch.Generator().manual_seed(2))
    classes = language.class_of[texts]
    assert torch.equal(classes[:, -1], last)
    seen = torch.zeros(8, 8).index_put_(
        (classes[:, :-1].flatten(), classes[:, 1:].flatten()), torch.ones(()), accumulate=True
    )
    assert_close(seen / seen.sum(1, keepdim=True), language.follows, rtol=0, atol=0.03)
    assert torch.bincount(texts.flatten(), minlength=128).min() > 80  # all words are equally likely


def test_few_are_few_of_each_class():
    language = Language.made(torch.Generator().manual_seed(1))
    texts, label = toy.few(language, 5, torch.Generator())
    assert torch.bincount(label).tolist() == [5] * 8
    assert torch.equal(language.class_of[texts[:, -1]], label)
    perfect = toy.by_heart((torch.arange(128)[:, None], language.class_of), (texts, label))
    assert perfect.tolist() == [1.0] * 40
    assert toy.by_heart((texts[:0], label[:0]), (texts, label)).tolist() == [1 / 8] * 40


def test_the_mixed_words():
    texts = torch.arange(40).view(10, 4)
    within, over_all = (
        mix(texts, torch.Generator().manual_seed(1)) for mix in (toy.mix_texts, toy.mix_words)
    )
    assert torch.equal(within.sort(1).values, texts)
    assert not torch.equal(within, texts)
    assert torch.equal(over_all.flatten().sort().values, texts.flatten())
    assert not torch.equal(over_all.sort(1).values, texts)


def test_the_rivals_vectors_tell_the_classes_apart(part_of_run):
    run, language = part_of_run(), Language.made(torch.Generator().manual_seed(1))
    run.pick = lambda *, smoke, quick, full: quick
    world = toy.World(language, {}, (), ())
    vectors = toy.word_vectors(Trial(Workshop(run, world=world), Work(arm="ours"), arm="ours"))
    assert vectors.shape == (128, 16)
    nearest = torch.cdist(vectors, vectors).fill_diagonal_(torch.inf).argmin(1)
    assert (language.class_of[nearest] == language.class_of).float().mean() > 0.9
    network = toy.OnVectors(vectors)
    ids = torch.randint(128, (3, 4))
    expected = network.output(torch.cat([vectors[ids[:, place]] for place in range(4)], 1))
    assert_close(network(framed(ids, toy.START, toy.EXTRACT)), expected)
    assert {name for name, weight in network.named_parameters() if weight.requires_grad} == {
        "output.weight",
        "output.bias",
    }


@pytest.mark.parametrize(
    ("broken", "stage"),
    [
        ("", "pre_train"),
        ("words shuffled across texts", "pre_train_on_mixed_words"),
        ("words shuffled within each text", "pre_train_on_mixed_texts"),
        ("word vectors", "word_vectors"),
    ],
)
def test_one_arm_has_read_and_both_get_the_same_labels(part_of_run, monkeypatch, broken, stage):
    made, names = {}, ("pre_train", "pre_train_on_mixed_words", "pre_train_on_mixed_texts", "word_vectors")
    for name in names:
        monkeypatch.setattr(toy, name, lambda at, name=name: name)

    def watched(at, make, rate):
        labelled = at.world.labelled[at.level or 100]
        made[at.name] = at.before, make.__name__, len(labelled[0])
        assert at.world.chosen[0].tolist() != at.world.judged[0].tolist()
        return 0.5, None

    monkeypatch.setattr(toy, "tune", watched)
    monkeypatch.setattr(toy, "right", lambda model, part: torch.ones(len(part[0]), dtype=torch.float64))
    toy.learn_from_few(part_of_run(broken=broken))
    make = "on_vectors" if stage == "word_vectors" else "tuned_gpt"
    assert made == {
        "pre-trained@5": (stage, make, 40),
        "from scratch@5": (None, "tuned_gpt", 40),
        "from scratch@20": (None, "tuned_gpt", 160),
        "from scratch with 100": (None, "tuned_gpt", 800),
    }


def test_tuning_ends_without_gain_and_keeps_the_best(part_of_run, monkeypatch):
    run, scores, made = part_of_run(), iter([0.2, 0.9, 0.3, 0.4, 0.8]), []
    monkeypatch.setattr(run, "pick", lambda *, smoke, quick, full: (1000, 2) if quick == (300, 25) else smoke)

    def watched(model, part):
        made.append(deepcopy(model.state_dict()))
        return torch.tensor([next(scores)])

    monkeypatch.setattr(toy, "right", watched)
    monkeypatch.setattr(toy, "judge", lambda at, found: {"accuracy": 1.0})
    kept = {}

    def tuned_once(at, make, rate):
        if not kept:
            score, found = tune(at, make, rate)
            kept["score"], kept["weights"] = score, found.state_dict()
        return 0.5, None

    tune = toy.tune
    monkeypatch.setattr(toy, "tune", tuned_once)
    toy.learn_from_few(run)
    assert kept["score"] == pytest.approx(0.9)
    assert len(made) == 4  # 0.3 and 0.4 bring no improvement
    assert all(torch.equal(weight, made[1][name]) for name, weight in kept["weights"].items())


def test_the_set_up_is_the_stated_one():
    assert digest(toy) == "60d1587bfa5f"
    assert (toy.RATES, toy.PATIENCE) == ((1e-3, 4e-3, 1.6e-2), 2)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(gpt)
    assert record.headline_curve == "accuracy over labels per class"
    curves = record.curves[record.headline_curve]
    steps = {name: [step for step, _ in curve] for name, curve in curves.items()}
    assert steps == {"pre-trained": [5], "from scratch": [5, 20, 100], "memorised labels": [5, 20, 100]}


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(gpt, tolerance=1e-8)] == ["fine-tuning step"]


def test_the_stated_cost_matches_torchs_count():
    batch, tokens, width, layers, vocab, classes = 2, 5, 12, 2, 11, 3
    model = Classifier(make((vocab, tokens, width, 3, layers)), classes)
    with FlopCounterMode(display=False) as counter:
        model.loss(torch.randint(vocab, (batch, tokens)), torch.randint(classes, (batch,))).backward()
    stated = cost(batch, tokens, width, layers, vocab, classes, 4)
    masked = 2 * 2 * batch * layers * (tokens * (tokens - 1) // 2) * width
    assert counter.get_total_flops() == stated["forward+backward"].flops + 3 * masked
    assert stated["forward"].bytes == 4 * toy.parameters(model)
