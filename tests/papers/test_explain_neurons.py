"""The score against scipy's, predicates against loops, ablation, and the arms of the experiment."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torch.testing import assert_close

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

EXPERIMENT = importlib.import_module("readtrack.papers.explain_neurons.experiment")  # the hook's name, too
ALPHABET = "\n Aabct1."


def test_the_score_is_pearsons():
    activations, predicates = torch.randn(50, 3).double() + 2, (torch.rand(50, 4) < 0.4).double()
    found = correlations(activations, predicates)
    for neuron in range(3):
        for predicate in range(4):
            expected = pearsonr(activations[:, neuron].numpy(), predicates[:, predicate].numpy()).statistic
            assert found[neuron, predicate].item() == pytest.approx(expected, abs=1e-12)
    assert_close(found, torch.from_numpy(np.corrcoef(activations.T, predicates.T)[:3, 3:]))


def test_what_is_constant_scores_nothing():
    activations, predicates = torch.randn(20, 2), torch.ones(20, 2)
    activations[:, 0] = 3.0
    predicates[:5, 1] = 0
    found = correlations(activations, predicates)
    assert not found[0].any()
    assert not found[:, 0].any()
    assert found[1, 1] != 0


def test_predicates_are_those_of_loops():
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


def test_activations_are_what_the_second_matrix_is_given():
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
    assert torch.equal(losses(network, ids), whole)  # the hook is gone
    layer = network.blocks[neuron // 32].feed_forward[2]
    with torch.no_grad():
        layer.bias += 0.7 * layer.weight[:, neuron % 32]
        layer.weight[:, neuron % 32] = 0
    assert_close(rise, losses(network, ids) - whole)
    assert rise.abs().max() > 0


def test_the_experiment_its_null_run_and_its_break(run_experiment):
    record = run_experiment(module)
    values = {name: value for claim in record.claims for name, value in claim["values"].items()}
    assert values["mean score, own - another's explanation"] > 0
    assert 0 <= values["part of neurons that score 0.8 or more"] <= 1
    curve = record.curves["mean score over predicates"]["explainer"]
    assert sorted(count for count, _ in curve) == [1, 5, 30, 150, 1000]
    assert [artifact["name"] for artifact in record.artifacts] == ["neurons on text", "neurons"]
    null = run_experiment(module, null=True)
    for claim, metric in zip(
        null.claims,
        (
            "mean score, own - another's explanation",
            "mean score, 1000 - 30 predicates",
            "standardised rise where it fires, own - another's",
        ),
        strict=True,
    ):
        assert claim["values"][metric] == 0
    broken = run_experiment(module, broken="shuffled activations")
    shuffled = {name: value for claim in broken.claims for name, value in claim["values"].items()}
    assert (
        shuffled["mean score, own - another's explanation"]
        < values["mean score, own - another's explanation"]
    )


def test_a_page_is_orange_where_a_neuron_is_active_and_blue_where_that_was_said():
    one = drawing.Seen("title", " a ", [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    found = (255 * drawing.page([one])).round().int()
    cells = found[:, drawing.MARGIN :, drawing.MARGIN :]
    high, wide = drawing.HIGH, drawing.WIDE
    for row, colour, where in ((1, drawing.ORANGE, 0), (2, drawing.BLUE, 2)):
        for place in range(3):
            corner = tuple(cells[:, row * high, place * wide].tolist())
            assert corner == (colour if place == where else drawing.PAPER)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(module)] == ["score all explanations"]
