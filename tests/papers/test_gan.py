"""The losses compared with logarithms as written, the theory by quadrature, and the gradients of both
networks.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import gan
from readtrack.papers.gan import (
    Game,
    Generator,
    Maxout,
    discriminator_loss,
    minimax_loss,
    non_saturating_loss,
    optimal_discriminator,
    parzen,
    value,
)
from readtrack.papers.gan.experiment import (
    Digits,
    Way,
    data_density,
    fitted_gaussian,
    gradient_norm,
    mixture,
    normal,
    panel,
    play,
)
from readtrack.runs.trial import Trial, Work, Workshop
from readtrack.scores.digit_features import digit_features

experiment = importlib.import_module("readtrack.papers.gan.experiment")  # the hook has the same name


class Reference(nn.Module):
    """The same networks from torch's layers, with losses from logarithms of probabilities."""

    def __init__(self, pixels: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, pixels),
            nn.Sigmoid(),
        )
        half = hidden // 2
        self.judge = nn.ModuleList(
            [nn.Linear(pixels, 3 * half), nn.Linear(half, 3 * half), nn.Linear(half, 1)]
        )

    def rate(self, x):
        for layer in list(self.judge)[:2]:
            x = nn.functional.max_pool1d(layer(x)[:, None], 3)[:, 0]
        return torch.sigmoid(self.judge[2](x))[:, 0]

    def forward(self, x, z):
        fake = self.generator(z)
        wants = torch.log(self.rate(x)) + torch.log(1 - self.rate(fake.detach()))
        return -wants.mean(), -torch.log(self.rate(fake)).mean()


THEIR_NAMES = {
    "generator.first": "generator.0",
    "generator.second": "generator.2",
    "generator.pixels": "generator.4",
    "discriminator.first.linear": "judge.0",
    "discriminator.second.linear": "judge.1",
    "discriminator.out": "judge.2",
}


def test_the_game_matches_logarithms(assert_parity):
    ours, theirs = Game(7, 6, 3, dropout=0.0), Reference(7, 6, 3)

    def reference(weights, x, z):
        named = {name.rpartition("."): weight for name, weight in weights.items()}
        mapped = {f"{THEIR_NAMES[layer]}.{kind}": weight for (layer, _, kind), weight in named.items()}
        return functional_call(theirs, mapped, (x, z))

    assert_parity(
        lambda w, x, z: functional_call(ours, w, (x, z)),
        reference,
        (torch.rand(5, 7), torch.randn(5, 3)),
        weights=dict(ours.named_parameters()),
    )


def test_losses_stay_finite_where_the_judge_is_sure():
    sure = torch.tensor([-200.0, 200.0], requires_grad=True)
    for loss in (minimax_loss, non_saturating_loss, lambda fake: discriminator_loss(-fake, fake)):
        (gradient,) = torch.autograd.grad(loss(sure), sure)
        assert loss(sure).isfinite()
        assert gradient.isfinite().all()


def test_the_slopes_differ_by_the_odds():
    """Section 3: for one sample the slopes are D and 1 - D, so the first vanishes if D is confident."""
    logit = torch.tensor([-6.0, -1.0, 0.5], dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(loss(logit), logit)[0] * -3 for loss in (minimax_loss, non_saturating_loss)]
    assert_close(slopes[0], logit.sigmoid())
    assert_close(slopes[1], 1 - logit.sigmoid())


def test_the_samples_are_a_constant_for_the_judge():
    game = Game(7, 6, 3)
    wants, _ = game(torch.rand(5, 7), torch.randn(5, 3))
    wants.backward()
    assert all(weight.grad is None for weight in game.generator.parameters())


def test_dropout_is_the_judges_alone():
    places = [name for name, module in Game(7, 6, 3).named_modules() if isinstance(module, nn.Dropout)]
    assert places == ["discriminator.dropout"]
    game, x = Game(7, 40, 3), torch.rand(9, 7)
    assert not torch.equal(game.discriminator(x), game.discriminator(x))
    game.eval()
    assert torch.equal(game.discriminator(x), game.discriminator(x))


def test_maxout_takes_the_largest_piece():
    layer, x = Maxout(4, 3, 2), torch.randn(5, 4)
    pieces = layer.linear(x)
    for unit in range(3):
        assert_close(layer(x)[:, unit], torch.maximum(pieces[:, 2 * unit], pieces[:, 2 * unit + 1]))


def test_pixels_are_ink():
    made = Generator(3, 6, 7)(50 * torch.randn(20, 3))
    assert 0 <= made.min() < made.max() <= 1


def test_no_judge_is_worth_more_than_the_optimal_one():
    """The value of the optimal D is 2 JSD - log 4; any other D has a lower value (proposition 1)."""
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    p, q = data_density(x), normal(x, 0.3, 1.0)
    step = (x[1] - x[0]).item()

    def worth(judge):
        return ((p * judge.log() + q * (1 - judge).log()).sum() * step).item()

    best = optimal_discriminator(p, q)
    assert worth(best) == pytest.approx(value(p, q, step), abs=1e-9)
    for other in (0.5 * torch.ones_like(x), 0.9 * best + 0.05, best.square() * 0.9 + 0.01):
        assert worth(other) < worth(best)
    assert value(p, p, step) == pytest.approx(-math.log(4), abs=1e-6)
    assert (p.sum() * step).item() == pytest.approx(1, abs=1e-6)


def test_the_data_follow_their_density():
    x = mixture(200_000, torch.Generator().manual_seed(0))[:, 0]
    counted = torch.histc(x, 40, -3, 3) / len(x)
    centres = torch.linspace(-3, 3, 41)[:-1] + 0.075
    assert_close(counted / 0.15, data_density(centres), rtol=0, atol=0.02)


def test_parzen_windows_match_scikits():
    neighbors = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is not installed")
    samples, x = torch.rand(50, 6), torch.rand(9, 6)
    expected = neighbors.KernelDensity(bandwidth=0.3).fit(samples.numpy()).score_samples(x.numpy())
    assert_close(parzen(samples, x, 0.3), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)


def test_the_gaussian_has_the_digits_moments():
    x = 0.5 + 0.05 * torch.randn(300, 5) @ torch.randn(5, 5)
    made = fitted_gaussian(x, 50_000, torch.Generator().manual_seed(0))
    assert_close(made.mean(0), x.mean(0), rtol=0, atol=0.01)
    assert_close(made.T.cov(), x.T.cov(), rtol=0, atol=0.003)


def test_a_panel_shows_three_curves():
    flat = torch.zeros(160)
    picture = panel(flat, flat + 0.5, flat + 1, height=20)
    colours = {tuple(round(v, 1) for v in pixel) for pixel in picture.flatten(1).T.tolist()}
    assert picture.shape == (3, 20, 320)
    assert colours == {(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.6, 0.2), (0.2, 0.3, 1.0)}


def test_the_experiment_runs(run_experiment):
    record = run_experiment(gan)
    assert {artifact["name"] for artifact in record.artifacts} == {
        "the game for one number",
        "makers of digits",
        "samples",
        "the game for digits",
    }
    first = {arm: curve[0] for arm, curve in record.curves["the discriminator's loss"].items()}
    assert len(set(first.values())) == 1  # the same networks, batch and noise
    assert first.keys() == {f"{arm}, rate 0.2" for arm in ("non-saturating", "minimax")}


def test_the_set_up_is_the_stated_one():
    assert digest(experiment) == "e8ce41893ed1"


def test_both_players_descend_with_momentum_and_the_rivals_by_adam():
    player = Generator(3, 6, 7)
    descent = Way(minimax_loss).optimizer(player, 0.2)
    assert isinstance(descent, torch.optim.SGD)
    assert (descent.defaults["lr"], descent.defaults["momentum"]) == (0.2, 0.5)
    adam = Way(minimax_loss, adam=True).optimizer(player, 0.2)
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize(("still", "moved"), [(True, {"generator"}), (False, {"generator", "discriminator"})])
def test_each_player_is_updated_unless_it_is_fixed(part_of_run, still, moved):
    """Compares both networks before and after four updates."""
    run = part_of_run()
    eye = digit_features(run, run.source("images").grey(8))
    digits = Digits(torch.rand(9, 64), torch.rand(9, 64), torch.rand(9, 64), eye)
    at = Trial(Workshop(run, digits), Work(arm="non-saturating"), arm="non-saturating")
    at.start()
    _, played = play(at, Way(non_saturating_loss, still=still), 0.2)
    at.start()
    before = dict(Game(64, 128, 16).named_parameters())
    after = played.game.named_parameters()
    assert {name.split(".")[0] for name, one in after if not torch.equal(one, before[name])} == moved


def test_the_gradients_ratio_is_the_odds_against_data():
    """Section 3, for one sample: (1 - D) / D, whatever the generator."""
    game, z = Game(7, 6, 3, dropout=0.0).double(), torch.randn(1, 3, dtype=torch.float64)
    logit = game.discriminator(game.generator(z))
    norms = [gradient_norm(loss(logit), game.generator) for loss in (non_saturating_loss, minimax_loss)]
    assert norms[0] / norms[1] == pytest.approx((-logit).exp().item())


def test_modes_are_the_digits_drawn():
    """Half of the samples are 3, and a quarter each are 5 and 7: 2^1.5 modes."""
    sure = 100 * torch.nn.functional.one_hot(torch.tensor([3, 3, 5, 7]), 10).float()
    digits = Digits(*[torch.zeros(1, 64)] * 3, lambda _: sure)
    assert digits.drawn(torch.zeros(4, 64)) == pytest.approx(2**1.5)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(gan)] == ["both losses", "images"]
