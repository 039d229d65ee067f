"""The decoder compared with transformers' OPT, chains of additions with sums, outputs and training
targets, and the arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close
from transformers import OPTConfig, OPTForCausalLM

from readtrack.checks.constants import digest
from readtrack.papers import galactica
from readtrack.papers.galactica import SIZES, Galactica, from_released
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

its = importlib.import_module("readtrack.papers.galactica.experiment")


def reference(*, bias: bool) -> OPTForCausalLM:
    config = OPTConfig(
        vocab_size=17,
        hidden_size=24,
        num_attention_heads=3,
        num_hidden_layers=2,
        ffn_dim=96,
        max_position_embeddings=12,
        word_embed_proj_dim=24,
        activation_function="gelu",
        enable_bias=bias,
        dropout=0.0,
        attn_implementation="eager",
        use_cache=False,
    )
    theirs = OPTForCausalLM(config).double().eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return theirs


def small(**settings: object) -> Galactica:
    return Galactica(17, context=12, model=24, heads=3, layers=2, **settings).double()


@pytest.mark.parametrize("bias", [False, True])
def test_released_weights_speak_as_in_transformers(assert_parity, bias):
    """Compares outputs and all gradients; the mapping of the weights is differentiable."""
    theirs, ours = reference(bias=bias), small(bias=bias)
    ids = torch.randint(2, 17, (2, 11))
    weights = dict(theirs.named_parameters())
    assert from_released(weights).keys() == ours.state_dict().keys()
    assert_parity(
        lambda w: functional_call(ours, from_released(w), (ids,)),
        lambda w: (
            functional_call(
                theirs, {**w, "lm_head.weight": w["model.decoder.embed_tokens.weight"]}, (ids,)
            ).logits
        ),
        (),
        weights=weights,
        rtol=1e-5,  # the reference computes the softmax in single precision
        atol=1e-6,
    )


def test_names_of_other_models_are_refused():
    with pytest.raises(ValueError, match="OPT has no parameter"):
        from_released({"model.decoder.layers.0.rotary.weight": torch.zeros(1)})


def test_the_defaults_and_sizes_are_the_papers():
    with torch.device("meta"):
        default = Galactica()
        counts = [sum(w.numel() for w in Galactica(**size).parameters()) for size in SIZES.values()]
    assert sum(weight.numel() for weight in default.parameters()) == counts[0] == 124_945_920
    assert [round(count / 1e9, 1) for count in counts] == [0.1, 1.3, 6.7, 30.0, 121.3]
    assert not any(
        layer.bias is not None for layer in default.modules() if isinstance(layer, torch.nn.Linear)
    )
    assert default.blocks[0].feed_forward[1].approximate == "none"
    assert small().blocks[0].attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)


@torch.no_grad()
def test_reading_in_parts_equals_reading_at_once():
    model, ids = small(std=0.4), torch.randint(17, (2, 9))
    cache = model.empty_cache(2)
    found = torch.cat([model(part, cache) for part in ids.split([4, 1, 3, 1], 1)], 1)
    assert_close(found, model(ids), rtol=0, atol=1e-12)


@pytest.mark.parametrize("terms", [1, 3, its.LONGEST])
def test_chains_are_sums_modulo_five(terms):
    question, sums = its.chains(terms, 50, torch.Generator().manual_seed(0))
    assert question.shape == (50, its.LONGEST)
    assert (question[:, terms:] == its.PAD).all()
    for row, right in zip(question[:, :terms].tolist(), sums.tolist(), strict=True):
        assert right == [sum(row[: i + 1]) % 5 for i in range(terms)]


@pytest.mark.parametrize(
    ("way", "tokens"),
    [(its.as_sums, 3), (its.as_empty, 3), (its.as_nothing, 0), (its.at_random, 3)],
)
def test_text_between_the_work_tokens(way, tokens):
    question, sums = its.chains(3, 5, torch.Generator().manual_seed(0))
    text = its.text_of(question, way(sums, torch.Generator()), sums[:, -1:])
    assert text.shape == (5, its.LONGEST + 1 + tokens + 2)
    assert (text[:, its.LONGEST] == its.START).all()
    assert (text[:, -2] == its.END).all()
    assert torch.equal(text[:, -1], sums[:, -1])
    between = text[:, its.LONGEST + 1 : -2]
    if way is its.as_sums:
        assert torch.equal(between, sums)
    if way is its.as_empty:
        assert (between == its.EMPTY).all()


def test_the_model_writes_only_its_own_work():
    """The prompt is the question up to <work>. The control gets its empty work tokens as part of the
    prompt.
    """
    network = Galactica(its.VOCAB, context=2 * its.LONGEST + 3, model=24, heads=3, layers=1, std=0.5)
    question, sums = its.chains(4, 6, torch.Generator().manual_seed(0))
    wrong = (sums + 1) % 5
    given = []
    generate = network.generate
    network.generate = lambda ids, *rest, **options: given.append(ids) or generate(ids, *rest, **options)
    for steps, written, length in (
        (its.as_sums, True, 7),
        (its.as_empty, False, 12),
        (its.as_nothing, False, 8),
    ):
        way = its.Way(steps, written=written)
        found = [its.answer(network, way, question, s, torch.Generator()) for s in (sums, wrong)]
        assert torch.equal(found[0], found[1])  # the correct answer is not used
        assert given[-1].shape[1] == length
        assert torch.equal(found[0][:, :length], given[-1])


WAYS = {
    "work": its.Way(its.as_sums, written=True),
    "empty tokens": its.Way(its.as_empty, written=False),
    "at once": its.Way(its.as_nothing, written=False),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "ours"),
    [
        ("", WAYS["work"]),
        ("random digits as work", its.Way(its.at_random, written=True)),
        (
            "GRU trained on the sums",
            its.Way(its.as_nothing, written=False, along=True, make=its.Recurrent),
        ),
    ],
)
def test_the_arms_match_their_names(part_of_run, monkeypatch, broken, ours):
    ways = {}

    def watched(at, way, rate):
        ways[at.name] = way
        return 1.0, its.Outcome(way.make(), way)

    monkeypatch.setattr(its, "train", watched)
    monkeypatch.setattr(its, "show", lambda *_: None)
    its.add_up(part_of_run(broken=broken))
    assert ways == WAYS | {"work": ours}


def test_accuracies_are_of_chains_of_the_stated_lengths(part_of_run, monkeypatch):
    at = Trial(Workshop(part_of_run()), Work(arm="any"), arm="any")
    monkeypatch.setattr(
        its, "right", lambda run, outcome, terms, part: torch.tensor([terms / 10 + (part == "judge")])
    )
    found = its.judge(at, Sweep(None, None, {}))
    assert {name: value.item() for name, value in found.items()} == {
        "accuracy": pytest.approx(1.6),
        "accuracy on two digits": pytest.approx(1.2),
    }


def test_the_last_token_is_the_answer(part_of_run, monkeypatch):
    """A chain of two digits. The answers of even digits are right."""

    def answered(network, way, question, sums, generator):
        last = (sums[:, -1] + question[:, 0] % 2) % its.MODULUS
        return torch.stack((sums[:, -1], last), 1)

    monkeypatch.setattr(its, "answer", answered)
    run = part_of_run()
    question, _ = its.chains(2, 16, run.data("chains of 2 to judge by", "judge"), new=True)
    found = its.right(run, its.Outcome(None, WAYS["work"]), 2, "judge")
    assert torch.equal(found, (question[:, 0] % 2 == 0).double())


class Echo(torch.nn.Module):
    """Predicts the token that it has just read, with a logit that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.logit = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(ids, its.VOCAB) * self.logit


def test_targets_of_the_loss(part_of_run, monkeypatch):
    """The answer; with `written`, also the work and its end; with `along`, also the sums at the digits.

    The network predicts the token that it has just read, so the logits show where each target belongs.
    """
    found, run = [], part_of_run()
    monkeypatch.setattr(its, "right", lambda *_: torch.zeros(1))
    cross_entropy = its.F.cross_entropy

    def watched(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        found[-1].append((logits.argmax(1).view(64, -1), targets.view(64, -1)))
        return cross_entropy(logits, targets)

    monkeypatch.setattr(its.F, "cross_entropy", watched)
    ways = (
        its.Way(its.as_nothing, written=False, along=True, make=Echo),
        its.Way(its.as_sums, written=True, make=Echo),
        its.Way(its.as_empty, written=False, make=Echo),
    )
    for number, way in enumerate(ways):
        found.append([])
        its.train(Trial(Workshop(run), Work(arm=str(number)), arm=str(number)), way, 1e-3)
    assert [len(losses) for losses in found] == [6, 3, 3]  # three steps, with chains of 6, 5 and 4 digits
    for index, terms in enumerate((6, 5, 4)):
        (before, answer), (digits, sums) = found[0][2 * index : 2 * index + 2]
        assert (before == its.END).all()
        assert sums.shape == (64, terms)
        assert torch.equal(digits.cumsum(1) % its.MODULUS, sums)
        assert torch.equal(sums[:, -1:], answer)
        before, work = found[1][index]
        assert work.shape == (64, terms + 2)
        assert (before[:, 0] == its.START).all()
        assert torch.equal(before[:, 1:], work[:, :-1])
        assert (work[:, -2] == its.END).all()
        assert torch.equal(work[:, -3], work[:, -1])
        before, answer = found[2][index]
        assert (before == its.END).all()
        assert answer.shape == (64, 1)


@torch.no_grad()
def test_the_rival_reads_from_left_to_right_and_answers_at_once():
    network, ids = its.Recurrent(), torch.randint(its.VOCAB, (3, 8))
    logits = network(ids)
    changed = ids.clone()
    changed[:, 4] = (ids[:, 4] + 1) % its.VOCAB
    same = (network(changed) == logits).flatten(2).all(2).all(0)
    assert same.tolist() == 4 * [True] + 4 * [False]
    found = network.generate(ids, 2, torch.Generator(), temperature=0.0)
    assert torch.equal(found[:, :8], ids)
    assert torch.equal(found[:, 8], logits[:, -1].argmax(1))
    assert torch.equal(found[:, 9], network(found[:, :9])[:, -1].argmax(1))


def test_no_judged_chain_of_the_longest_is_trained_on():
    draw = torch.Generator().manual_seed(0)
    seen, new = (its.chains(its.LONGEST, 20_000, draw, new=new)[0] for new in (False, True))
    assert not set(map(tuple, seen.tolist())) & set(map(tuple, new.tolist()))
    answers = new.sum(1).remainder(5).bincount(minlength=5) / len(new)
    assert_close(answers, torch.full((5,), 0.2), rtol=0, atol=0.02)  # the selection is independent of the sum
    assert len(set(map(tuple, seen.tolist()))) > 9_000


def test_the_experiment_shows_the_work(run_experiment):
    record = run_experiment(galactica)
    assert [artifact["name"] for artifact in record.artifacts] == ["generated work"]


def test_the_rates_and_the_controls_threshold():
    assert digest(its) == "9479918db659"
    assert (its.STEPS, its.RATES) == (288, (1e-3, 2e-3, 5e-3))
    reached = its.WORK.control_reaches[0]
    assert (reached.metric, reached.threshold) == ("accuracy on two digits, at once", 0.95)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(galactica)] == ["generation of the work"]
