"""The score compared with scipy's, predicates with loops, ablation, and the experiment's arms."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch.testing import assert_close

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.papers import explain_neurons as module
from readtrack.papers.explain_neurons import (
    activations_of,
    answers,
    correlations,
    drawing,
    losses,
    questions,
    rise_without,
    wording,
)
from readtrack.papers.gpt2 import GPT2
from readtrack.runs.trial import Trial, Work, Workshop

EXPERIMENT = importlib.import_module("readtrack.papers.explain_neurons.experiment")  # as the hook
ALPHABET = "\n Aabct1."


@pytest.fixture
def a_trial(part_of_run) -> Trial:
    return Trial(Workshop(part_of_run()), Work(arm="own"), arm="own")


def test_the_score_is_pearsons():
    activations, predicates = torch.randn(50, 3).double() + 2, (torch.rand(50, 4) < 0.4).double()
    found = correlations(activations, predicates)
    for neuron in range(3):
        for predicate in range(4):
            expected = pearsonr(activations[:, neuron].numpy(), predicates[:, predicate].numpy()).statistic
            assert found[neuron, predicate].item() == pytest.approx(expected, abs=1e-12)
    assert_close(found, torch.from_numpy(np.corrcoef(activations.T, predicates.T)[:3, 3:]))


def test_constants_have_a_score_of_zero():
    activations, predicates = torch.randn(20, 2), torch.ones(20, 2)
    activations[:, 0] = 3.0
    predicates[:5, 1] = 0
    found = correlations(activations, predicates)
    assert not found[0].any()
    assert not found[:, 0].any()
    assert found[1, 1] != 0


def test_predicates_match_loops():
    ids, asked = torch.randint(len(ALPHABET), (3, 9)), questions()
    assert len(asked) >= 1000
    assert len({wording(one) for one in asked}) == len(asked)
    found = answers(ids, ALPHABET, asked).view(3, 8, -1)
    for row in range(3):
        text = "".join(ALPHABET[i] for i in ids[row].tolist())
        for place in range(8):
            for index in range(0, len(asked), 37):
                expected = all(
                    place >= question.back and text[place - question.back] in question.characters
                    for question in asked[index]
                )
                assert found[row, place, index].item() == expected


def test_an_explanation_in_words():
    vowel, blank = EXPERIMENT.Question("a vowel", 0, "aeiou"), EXPERIMENT.Question("' '", 1, " ")
    assert wording((vowel,)) == "a vowel"
    assert wording((vowel, blank)) == "a vowel after ' '"


def model() -> tuple[GPT2, torch.Tensor]:
    torch.manual_seed(0)
    return GPT2(len(ALPHABET), context=8, model=8, heads=2, layers=2).eval(), torch.randint(9, (3, 9))


def test_activations_are_the_input_of_the_second_matrix():
    network, ids = model()
    seen = activations_of(network, ids)
    assert seen.shape == (24, 64)
    given = []
    hook = network.blocks[1].feed_forward[2].register_forward_pre_hook(lambda _, args: given.append(args[0]))
    network(ids[:, :-1])
    hook.remove()
    assert torch.equal(seen[:, 32:], given[0].flatten(0, 1).detach())
    assert_close(losses(network, ids).mean(), network.loss(ids).detach())


@pytest.mark.parametrize("neuron", [3, 40])
def test_ablating_a_neuron_is_a_column_of_zeros_and_a_bias(neuron):
    network, ids = model()
    whole = losses(network, ids)
    rise = rise_without(network, ids, neuron, 0.7, whole)
    assert torch.equal(losses(network, ids), whole)  # the hook was removed
    layer = network.blocks[neuron // 32].feed_forward[2]
    with torch.no_grad():
        layer.bias += 0.7 * layer.weight[:, neuron % 32]
        layer.weight[:, neuron % 32] = 0
    assert_close(rise, losses(network, ids) - whole)
    assert rise.abs().max() > 0


def network(tokens: int = 40, neurons: int = 3) -> EXPERIMENT.Network:
    asked = tuple(torch.rand(tokens, 50) < 0.4 for _ in range(2))
    return EXPERIMENT.Network(*torch.randn(2, tokens, neurons), asked)


def test_each_neuron_is_scored_with_its_own_simulation():
    activations, simulated = torch.randn(2, 30, 4)
    assert_close(EXPERIMENT.paired(activations, simulated), correlations(activations, simulated).diag())
    assert not EXPERIMENT.paired(activations, torch.ones(30, 4)).any()


def test_the_explanation_is_chosen_on_one_text_and_scored_on_the_other(a_trial):
    found = network()
    fits, scores = (
        correlations(seen, asked.float())
        for seen, asked in zip((found.chosen_on, found.judged_on), found.asked, strict=True)
    )
    expected = scores.gather(1, fits.argmax(1)[:, None])[:, 0]
    assert_close(EXPERIMENT.own(found, a_trial), expected)
    late = correlations(torch.cat((found.chosen_on[-1:], found.chosen_on[:-1])), found.asked[0].float())
    assert_close(EXPERIMENT.late(found, a_trial), scores.gather(1, late.argmax(1)[:, None])[:, 0])


def test_another_neurons_explanation_is_never_its_own(a_trial):
    found = network(neurons=2)
    best = found.best(found.chosen_on)
    assert_close(EXPERIMENT.anothers(found, a_trial), found.scores(best.flip(0)))


def test_the_lookup_table_has_the_means_of_each_character(a_trial):
    found, here = network(tokens=4, neurons=1), (torch.tensor([0, 1, 1, 0]), torch.tensor([1, 0, 1, 2]))
    a = found.chosen_on[:, 0]
    table = {0: (a[0] + a[3]) / 2, 1: (a[1] + a[2]) / 2, 2: torch.tensor(0.0)}
    simulated = torch.stack([table[one] for one in here[1].tolist()])
    assert_close(
        EXPERIMENT.lookup(here, found, a_trial), EXPERIMENT.paired(found.judged_on, simulated[:, None])
    )


def test_the_first_30_predicates_stay_where_they_were(a_trial, monkeypatch):
    found = network(tokens=200)
    seen = []
    monkeypatch.setattr(EXPERIMENT, "own", lambda network, at: seen.append(network.asked) or torch.ones(3))
    EXPERIMENT.at_random_places(found, a_trial)
    for before, after in zip(found.asked, seen[0], strict=True):
        assert torch.equal(before[:, :30], after[:, :30])
        assert torch.equal(before.sum(0), after.sum(0))
        assert not torch.equal(before[:, 30:], after[:, 30:])


def test_weighted_predicates_are_a_least_squares_fit(a_trial):
    found = network(tokens=60)
    design = [np.column_stack((asked[:, :30].numpy(), np.ones(60))) for asked in found.asked]
    weights = np.linalg.lstsq(design[0], found.chosen_on.numpy(), rcond=None)[0]
    fitted = design[1] @ weights
    for neuron, score in enumerate(EXPERIMENT.regression(found, a_trial).tolist()):
        expected = pearsonr(found.judged_on[:, neuron].numpy(), fitted[:, neuron]).statistic
        assert score == pytest.approx(expected, abs=1e-4)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(module)
    score = {arm: value for (name, arm), value in record.values.items() if name == "score on a new text"}
    values = {name: value for claim in record.claims for name, value in claim["values"].items()}
    for ours, control in (("own", "another's"), ("own", "untrained"), ("1000 predicates", "30 predicates")):
        found = values[f"score on a new text, {ours} - {control}"]
        assert found == pytest.approx(score[ours] - score[control])
    assert 0 <= values["part of neurons that score 0.8 or more"] <= 1
    curve = record.curves["mean score over predicates"]["explainer"]
    assert [count for count, _ in curve] == [1, 5, 30, 150, 1000]
    assert curve[2][1] == pytest.approx(score["30 predicates"])
    assert curve[4][1] == pytest.approx(score["1000 predicates"])
    assert [artifact["name"] for artifact in record.artifacts] == ["neurons on text", "neurons"]


def test_explanations_are_chosen_and_judged_on_their_parts_of_the_text(part_of_run, monkeypatch):
    given, networks, run = [], [], part_of_run()
    monkeypatch.setattr(EXPERIMENT, "train", lambda *_: None)
    look, compare = EXPERIMENT.look, run.compare
    monkeypatch.setattr(EXPERIMENT, "look", lambda *all_of_it: given.append(all_of_it))
    EXPERIMENT.experiment(run)
    (_, model, untrained, texts, alphabet) = given[0]
    parts = data.stretches(data.characters(data.text())[0], run.seed)
    for part, windows in ((parts.choose, texts.choose), (parts.judge, texts.judge)):
        whole = ["".join(map(chr, piece.tolist())) for piece in part]
        assert all(any("".join(map(chr, row)) in piece for piece in whole) for row in windows.tolist())

    def watched(claim, *, arms, **others):
        networks.extend(arm.make.args[0] for arm in arms.values())
        compare(claim, arms=arms, **others)

    monkeypatch.setattr(run, "compare", watched)
    look(run, model, untrained, texts, alphabet)
    for network in networks:
        for seen, text in ((network.chosen_on, texts.choose), (network.judged_on, texts.judge)):
            assert any(torch.equal(seen, activations_of(one, text)) for one in (model, untrained))


def test_the_control_has_random_predicates_and_a_rival_has_thirty_characters(part_of_run, monkeypatch):
    compared, texts, run = {}, [], part_of_run()
    monkeypatch.setattr(EXPERIMENT, "train", lambda *_: None)
    look = EXPERIMENT.look
    monkeypatch.setattr(
        EXPERIMENT, "look", lambda *given: texts.append((given[3].choose, given[4])) or look(*given)
    )
    monkeypatch.setattr(run, "compare", lambda claim, **parts: compared.update({claim.name: parts}))
    EXPERIMENT.experiment(run)
    parts, asked = compared[EXPERIMENT.STRENGTH.name], questions()
    order = torch.randperm(len(asked), generator=run.data("predicates", "world")).tolist()
    thirty = parts["breaks"]["thirty characters"]["1000 predicates"].make
    assert thirty.func is parts["arms"]["30 predicates"].make.func is EXPERIMENT.own
    for made, expected in (
        (thirty, asked[:30]),
        (parts["arms"]["30 predicates"].make, [asked[index] for index in order[:30]]),
        (parts["arms"]["1000 predicates"].make, [asked[index] for index in order[:1000]]),
    ):
        assert torch.equal(made.args[0].asked[0], answers(*texts[0], expected))
    assert [[question.back for question in one] for one in asked[:30]] == [[0]] * 30
    assert "".join(one[0].characters for one in asked[:5]) == " etao"


def test_the_set_up_is_the_stated_one():
    assert digest(EXPERIMENT) == "b95ec284c065"


def test_a_page_is_orange_where_a_neuron_is_active_and_blue_where_predicted():
    one = drawing.Seen("title", " a ", [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    found = (255 * drawing.page([one])).round().int()
    cells = found[:, drawing.MARGIN :, drawing.MARGIN :]
    high, wide = drawing.HIGH, drawing.WIDE
    for row, colour, where in ((1, drawing.ORANGE, 0), (2, drawing.BLUE, 2)):
        for place in range(3):
            corner = tuple(cells[:, row * high, place * wide].tolist())
            assert corner == (colour if place == where else drawing.PAPER)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["score all explanations", "neurons explained"]
