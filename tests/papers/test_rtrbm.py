"""The RTRBM compared with enumeration of all states, its gradient through time, and the experiment's arms."""

from __future__ import annotations

import importlib
import itertools

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import rtrbm
from readtrack.papers.rtrbm import RTRBM, films, sample

EXPERIMENT = importlib.import_module("readtrack.papers.rtrbm.experiment")  # the hook has the same name

VISIBLE, HIDDEN, TIME = 3, 2, 3


def machine(**options: bool) -> RTRBM:
    torch.manual_seed(1)
    model = RTRBM(VISIBLE, HIDDEN, recurrent=2.0, **options).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.5 * torch.randn_like(weight)
    return model


def states(size: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=size)), dtype=torch.float64)


def expected_hidden(model: RTRBM, film: Tensor) -> list[Tensor]:
    """The biases of each frame of one film, equation by equation."""
    bias, found = model.first_bias, []
    for frame in film:
        found.append(bias)
        h = torch.stack([torch.sigmoid(model.W[:, j] @ frame + bias[j]) for j in range(HIDDEN)])
        bias = model.hidden_bias + model.U @ h
    return found


def log_likelihood(model: RTRBM, film: Tensor) -> Tensor:
    """The log-likelihood of one film, summed over all visible and hidden states of all frames."""
    total = torch.zeros((), dtype=torch.float64)
    for frame, bias in zip(film, expected_hidden(model, film), strict=True):

        def energy(v: Tensor, h: Tensor, bias: Tensor = bias) -> Tensor:
            return -(v @ model.W @ h) - v @ model.visible_bias - h @ bias

        every = torch.stack([torch.stack([-energy(v, h) for h in states(HIDDEN)]) for v in states(VISIBLE)])
        own = torch.stack([-energy(frame, h) for h in states(HIDDEN)])
        total = total + own.logsumexp(0) - every.flatten().logsumexp(0)
    return total


def test_free_energies_and_biases_match_enumeration():
    model = machine()
    film = torch.randint(2, (1, TIME, VISIBLE)).double()
    biases = model.biases(film)
    assert_close(biases[0], torch.stack(expected_hidden(model, film[0])))
    free = model.free_energy(film, biases)[0]
    every = states(VISIBLE)[:, None].expand(-1, TIME, -1)
    normaliser = (-model.free_energy(every, biases.expand(len(every), -1, -1))).logsumexp(0)
    assert_close((-free - normaliser).sum(), log_likelihood(model, film[0]))


def test_the_exact_likelihood_matches_enumeration_and_all_films_sum_to_1():
    model = machine()
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2 * VISIBLE))).double()
    every = every.unflatten(1, (2, VISIBLE))
    found = model.log_likelihood(every)
    assert_close(found.exp().sum().item(), 1.0)
    for index in (0, 9, 50):
        assert_close(found[index], log_likelihood(model, every[index]))
    with pytest.raises(ValueError, match=r"2\^17 states"):
        RTRBM(17, 2).log_likelihood(torch.zeros(1, 1, 17))


def test_with_exact_samples_the_gradient_is_the_likelihoods():
    """All states replace the sampled frames, weighted by their probabilities."""
    model = machine()
    film = torch.randint(2, (1, TIME, VISIBLE)).double()
    exact = torch.autograd.grad(-log_likelihood(model, film[0]), list(model.parameters()))
    biases = model.biases(film)
    every = states(VISIBLE)[:, None].expand(-1, TIME, -1)
    free = model.free_energy(every, biases.expand(len(every), -1, -1))
    dreamed = ((-free).softmax(0).detach() * free).sum()
    loss = model.free_energy(film, biases).sum() - dreamed
    for ours, theirs in zip(torch.autograd.grad(loss, list(model.parameters())), exact, strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_only_the_recurrent_machine_has_a_gradient_through_time():
    film = torch.randint(2, (4, TIME, VISIBLE)).double()
    for model, flows in (
        (machine(), True),
        (machine(temporal=True), False),
        (machine(through_time=False), False),
    ):
        last = model.biases(film)[:, -1]
        (gradient,) = torch.autograd.grad(last.sum(), model.W, allow_unused=True, materialize_grads=True)
        assert bool(gradient.any()) == flows


def test_the_temporal_machine_hands_on_samples_in_training_and_means_after():
    model, plain = machine(temporal=True), machine()
    film = torch.randint(2, (500, TIME, VISIBLE)).double()
    assert_close(model.biases(film), plain.biases(film))
    sampled = model.biases(film, torch.Generator().manual_seed(0))
    handed = torch.linalg.solve(model.U, (sampled[:, 1] - model.hidden_bias).T).T
    assert_close(handed, handed.round())
    assert torch.equal(plain.biases(film), plain.biases(film, torch.Generator().manual_seed(0)))


def test_gibbs_sampling_converges_to_the_models_probabilities():
    model = machine()
    biases = model.biases(torch.zeros(1, 1, VISIBLE).double()).expand(4000, 1, HIDDEN)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        drawn = model.gibbs(torch.zeros(4000, 1, VISIBLE).double(), biases, 30, generator)
        every = states(VISIBLE)[:, None]
        probabilities = (-model.free_energy(every, biases[: len(every)])).softmax(0)
    codes = (drawn[:, 0] @ torch.tensor([4.0, 2.0, 1.0]).double()).long()
    found = torch.bincount(codes, minlength=8) / 4000
    assert_close(found.double(), probabilities[:, 0], rtol=0, atol=0.03)


def test_samples_are_ones_as_often_as_they_should():
    drawn = sample(torch.full((20_000,), 0.3), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0.0, 1.0}
    assert abs(drawn.mean().item() - 0.3) < 0.02


# Experiment and benchmark


def test_films_show_the_bits_again_after_a_blank():
    frames = films(50, torch.Generator().manual_seed(0))
    assert frames.shape == (50, 3, 11)
    assert torch.equal(frames[:, 0, :8], frames[:, 2, :8])
    assert not frames[:, 1, :8].any()
    assert 0.4 < frames[:, 0, :8].mean() < 0.6
    assert torch.equal(frames[7, :, 8:], torch.eye(3))


def test_recall_does_not_start_from_the_true_pixels(part_of_run):
    """Each pixel has its own unit, so sampling ends at the stored film for any start."""
    model = RTRBM(11, 11)
    with torch.no_grad():
        model.W.copy_(40 * torch.eye(11))
        for bias in (model.visible_bias, model.hidden_bias, model.first_bias):
            bias.fill_(-20)
    assert 0.3 < EXPERIMENT.recall(part_of_run(), model, "choose").bits.mean() < 0.7


def test_a_machine_that_stores_the_bits_recalls_them(part_of_run):
    """Each bit has three hidden units: the first copies the pixel, the second holds the bit for one frame,
    and the third switches the pixel on. Only in the first frame, the third unit is always on.
    """
    bits, clock = torch.arange(8), torch.arange(3)
    model = RTRBM(11, 27)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.W[bits, bits] = 20.0
        model.W[bits, bits + 16] = 60.0
        model.W[clock + 8, clock + 24] = 40.0
        model.U[bits + 8, bits] = 20.0
        model.U[bits + 16, bits + 8] = 140.0
        model.visible_bias.copy_(torch.tensor([-30.0] * 8 + [-20.0] * 3))
        model.hidden_bias.copy_(torch.tensor([-10.0] * 16 + [-100.0] * 8 + [-20.0] * 3))
        model.first_bias.copy_(model.hidden_bias)
        model.first_bias[bits + 16] = 100.0
    found = EXPERIMENT.recall(part_of_run(), model, "judge")
    assert not found.bits.any()
    assert not found.blank.any()
    truth, guess = found.films
    assert torch.equal(guess, truth)


def test_the_arms_differ_in_the_transferred_weights():
    made = {arm: EXPERIMENT.started(make) for arm, make in EXPERIMENT.MACHINES.items()}
    facts = {arm: (model.temporal, model.through_time) for arm, model in made.items()}
    assert facts == {"recurrent": (False, True), "temporal": (True, True)}


def test_the_near_miss_trains_without_a_gradient_through_time(run_experiment, monkeypatch):
    made, started = {}, EXPERIMENT.started

    def noted(make):
        model = started(make)
        made[model.temporal] = model.through_time
        return model

    monkeypatch.setattr(EXPERIMENT, "started", noted)
    run_experiment(rtrbm, broken="no gradient through time")
    assert made == {False: False, True: True}


def test_the_rival_has_more_units_but_no_gradient_through_time(comparisons):
    (given,) = comparisons(rtrbm)
    assert given.breaks["more hidden units"]["recurrent"].make is EXPERIMENT.with_more_units
    model = EXPERIMENT.started(EXPERIMENT.with_more_units)
    assert (model.temporal, model.through_time) == (False, False)
    assert model.W.shape == (11, 128)
    assert_close(model.U, 3.0 * torch.eye(128))


def test_the_set_up_is_the_stated_one():
    assert digest(EXPERIMENT) == "e30cf0a28349"


def test_a_film_continues_from_the_shown_frames():
    """Each pixel's unit depends on its neighbour in the previous frame, so a point moves to the right."""
    model = RTRBM(6, 6)
    with torch.no_grad():
        model.W.copy_(20 * torch.eye(6))
        model.U.copy_(60 * torch.eye(6).roll(1, 0))
        model.visible_bias.fill_(-10)
        model.hidden_bias.fill_(-30)
        model.first_bias.fill_(-10)
    film = EXPERIMENT.go_on(model, torch.eye(6)[None, :2], 5, torch.Generator().manual_seed(0))
    assert_close(film[0].round(), torch.eye(6)[:5])


def test_a_usual_frame_leaves_the_hidden_units_at_a_half():
    torch.manual_seed(0)
    model = EXPERIMENT.started(RTRBM)
    assert 0.4 < model.W.std().item() < 0.6
    assert_close(model.U, 3.0 * torch.eye(32))
    biases = model.biases(torch.full((1, 2, 11), 0.25))
    assert_close(torch.full((1, 2, 11), 0.25) @ model.W + biases, torch.zeros(1, 2, 32), rtol=0, atol=1e-5)


def test_the_experiment_runs(run_experiment):
    record = run_experiment(rtrbm)
    assert record.curves["wrong bits while learning"].keys() == {
        "recurrent, rate 0.03",
        "temporal, rate 0.03",
    }
    assert [artifact["name"] for artifact in record.artifacts] == [
        "last frames",
        "exact likelihood",
        "bouncing balls",
    ]
    assert len(run_experiment(rtrbm, null=True).artifacts) == 2


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(rtrbm)] == ["mean fields of a film"]
