"""The variational autoencoder compared with torch's distributions and an integral, the gradients, and the
rules.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.checks.constants import digest
from readtrack.papers import vae
from readtrack.papers.vae import (
    VAE,
    divergence,
    log_bernoulli,
    log_likelihood,
    log_normal,
    sample,
    wake_sleep,
)
from readtrack.papers.vae.benchmark import cost
from readtrack.papers.vae.digits import Digits, draw_digits, moved
from readtrack.papers.vae.experiment import Trained, by_wake_sleep, fit_mixture, sooner
from readtrack.papers.vae.gradients import Gradients, fitted, mean_alone, mean_off, regressed, variance
from readtrack.papers.vae.model import by_density, gradient_draws, without_divergence, without_gradient
from readtrack.runs.table import Sweep, Table
from readtrack.runs.trial import Trial, Work, Workshop

EXPERIMENT = importlib.import_module("readtrack.papers.vae.experiment")  # the hook has the same name


class Reference(nn.Module):
    """The same networks from torch's layers, with a bound from torch's distributions and its own sample."""

    def __init__(self, pixels: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(pixels, hidden), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(hidden, latent), nn.Linear(hidden, latent)])
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, pixels))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        mean, log_variance = (head(self.trunk(x)) for head in self.heads)
        guess = torch.distributions.Normal(mean, log_variance.exp().sqrt())
        prior = torch.distributions.Normal(0.0, 1.0)
        z = mean + guess.scale * noise
        pixels = torch.distributions.Bernoulli(logits=self.decoder(z), validate_args=False)
        return pixels.log_prob(x).sum(-1) - torch.distributions.kl_divergence(guess, prior).sum(-1)


THEIR_NAMES = {
    "encoder": "trunk.0",
    "mean": "heads.0",
    "log_variance": "heads.1",
    "decoder": "decoder.0",
    "pixels": "decoder.2",
}


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = ((name.split("."), weight) for name, weight in weights.items())
    return {f"{THEIR_NAMES[layer]}.{kind}": weight for (layer, kind), weight in parts}


@pytest.mark.parametrize("size", [(7, 5, 3), (1, 2, 1), (9, 4, 6)])
def test_the_bound_matches_torchs_distributions(assert_parity, size):
    ours, theirs = VAE(*size), Reference(*size)
    assert_parity(
        lambda w, x, noise: functional_call(ours, w, (x, noise)),
        lambda w, x, noise: functional_call(theirs, as_reference(w), (x, noise)),
        (torch.rand(4, size[0]), torch.randn(4, size[2])),
        weights=dict(ours.named_parameters()),
    )


def test_the_sample_matches_torchs():
    mean, log_variance = torch.randn(2, 5, 3)
    torch.manual_seed(3)
    theirs = torch.distributions.Normal(mean, log_variance.exp().sqrt()).rsample()
    torch.manual_seed(3)
    assert_close(sample(mean, log_variance, torch.randn(5, 3)), theirs)


def test_the_divergence_is_the_mean_of_the_densities_difference():
    mean, log_variance = torch.tensor([[0.7, -1.2]]).double(), torch.tensor([[-0.5, 0.4]]).double()
    zero = torch.zeros_like(mean)
    z = sample(mean, log_variance, torch.randn(400_000, 1, 2, dtype=torch.float64))
    difference = log_normal(z, mean, log_variance) - log_normal(z, zero, zero)
    error = difference.std().item() / math.sqrt(len(z))
    assert abs(difference.mean().item() - divergence(mean, log_variance).item()) < 4 * error


def test_densities_sum_to_one():
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4).double()
    logits = torch.randn(1, 4, dtype=torch.float64).expand(16, 4)
    assert_close(log_bernoulli(logits, images).exp().sum().item(), 1.0)
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None, None]
    mean, log_variance = torch.tensor([[0.3]]).double(), torch.tensor([[0.5]]).double()
    density = log_normal(z, mean, log_variance).exp()[:, 0]
    assert_close(torch.trapezoid(density, z[:, 0, 0]).item(), 1.0)


def test_bound_and_likelihood_keep_their_order():
    """With a single latent variable, the integral is log p(x). Many samples approximate it, and the bound
    is below.
    """
    model, x = VAE(6, 5, 1).double(), (torch.rand(3, 6) > 0.5).double()
    z = torch.linspace(-10, 10, 4001, dtype=torch.float64)[:, None, None].expand(-1, 3, 1)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    with torch.no_grad():
        joint = log_bernoulli(model.decode(z), x) + log_normal(z, zero, zero)
        exact = torch.trapezoid(joint.exp(), z[:, 0, 0], dim=0).log()
        noise = torch.randn(20_000, 3, 1, dtype=torch.float64)
        found = log_likelihood(model, x, noise)
        bound = torch.stack([model(x, some) for some in noise[:2000]]).mean(0)
    assert_close(found, exact, rtol=0, atol=0.01)
    assert (bound < exact).all()


def test_both_gradients_have_autograds_mean():
    model, x = VAE(6, 5, 2).double(), (torch.rand(3, 6) > 0.5).double()
    noise = torch.randn(50_000, 3, 2, dtype=torch.float64)
    through, density, value = gradient_draws(model, x, noise)
    guess = [tensor.detach().requires_grad_() for tensor in model.encode(x)]
    mean_value = log_bernoulli(model.decode(sample(*guess, noise)), x).mean(0)
    exact = torch.cat(torch.autograd.grad(mean_value.sum(), guess), -1)
    assert_close(through.mean(0), exact, rtol=1e-9, atol=1e-11)
    error = density.std(0) / math.sqrt(len(noise))
    assert ((density.mean(0) - exact).abs() < 5 * error).all()
    assert_close(value[..., 0].mean(0), mean_value)


def halves(model: VAE) -> tuple[list[Tensor], list[Tensor]]:
    """The encoder's weights and the decoder's."""
    encoder = [model.encoder, model.mean, model.log_variance]
    return [w for layer in encoder for w in layer.parameters()], [
        *model.decoder.parameters(),
        *model.pixels.parameters(),
    ]


def test_awake_the_decoder_learns_to_undo_the_encoder():
    model, x = VAE(6, 5, 2), (torch.rand(4, 6) > 0.5).float()
    noise, dream = torch.randn(2, 4, 2)
    wake_sleep(model, x, noise, dream, torch.rand(4, 6)).sum().backward()
    with torch.no_grad():
        causes = sample(*model.encode(x), noise)
    awake = log_bernoulli(model.decode(causes), x).sum()
    _, decoder = halves(model)
    for weight, alone in zip(decoder, torch.autograd.grad(awake, decoder), strict=True):
        assert_close(weight.grad, alone)


def test_asleep_the_encoder_learns_to_find_the_causes_of_a_dream():
    """In the sleep phase, the encoder's gradient is that of log q(z | sampled x), by torch's
    distributions. Pixels are sampled with the decoder's probabilities.
    """
    model, x = VAE(6, 5, 2).double(), (torch.rand(4, 6) > 0.5).double()
    noise, dream = torch.randn(2, 4, 2, dtype=torch.float64)
    uniform = torch.rand(4, 6, dtype=torch.float64)
    wake_sleep(model, x, noise, dream, uniform).sum().backward()
    with torch.no_grad():
        probability = torch.special.expit(model.decode(dream))
        dreamt = torch.where(uniform < probability, 1.0, 0.0).double()
    mean, log_variance = model.encode(dreamt)
    q = torch.distributions.Normal(mean, log_variance.exp().sqrt())
    encoder, _ = halves(model)
    expected = torch.autograd.grad(q.log_prob(dream).sum(), encoder)
    for weight, alone in zip(encoder, expected, strict=True):
        assert weight.grad.abs().sum() > 0
        assert_close(weight.grad, alone)


def test_dreams_have_the_ink_of_the_decoders_probabilities():
    """If the decoder predicts ink with odds 9 to 1, nine tenths of the pixels of sampled images are ink."""
    model, seen = VAE(50, 5, 2), []
    torch.nn.init.zeros_(model.pixels.weight)
    torch.nn.init.constant_(model.pixels.bias, math.log(9))
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.zeros(200, 50)
    by_wake_sleep(model, x, torch.Generator().manual_seed(0))
    awake, asleep = seen
    assert torch.equal(awake, x)
    assert set(asleep.flatten().tolist()) == {0.0, 1.0}
    assert asleep.mean().item() == pytest.approx(0.9, abs=0.02)


def test_the_breaks_leave_out_the_named_ingredient():
    model, x = VAE(6, 5, 2).double(), (torch.rand(4, 6) > 0.5).double()
    noise = torch.randn(4, 2, dtype=torch.float64)
    guess, bound = model.encode(x), model(x, noise)
    assert_close(without_divergence(model, x, noise), bound + divergence(*guess))
    assert_close(without_gradient(model, x, noise), bound)
    encoder, decoder = halves(model)
    for weights, whole in ((encoder, -divergence(*guess)), (decoder, bound)):
        found = torch.autograd.grad(without_gradient(model, x, noise).sum(), weights)
        expected = torch.autograd.grad(whole.sum(), weights)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other)


def test_the_papers_network_for_mnist():
    """It has 784 pixels, 500 hidden units, 20 latent variables, and five layers with biases."""
    encoder, decoder = 784 * 500 + 500 + 2 * (500 * 20 + 20), 20 * 500 + 500 + 500 * 784 + 784
    with torch.device("meta"):
        assert sum(w.numel() for w in VAE(784, 500, 20).parameters()) == encoder + decoder == 815_824


# Experiment and benchmark


def test_the_gradient_by_the_density_is_right_on_average():
    """Compares the encoder's gradient through the sample with the score-function gradient, over many
    draws; the decoder's is the same.
    """
    model, x = VAE(6, 5, 2).double(), (torch.rand(3, 6) > 0.5).double()
    noise = torch.randn(60_000, 3, 2, dtype=torch.float64)
    encoder, decoder = halves(model)
    mean_bound = (
        log_bernoulli(model.decode(sample(*model.encode(x), noise)), x).mean(0) - divergence(*model.encode(x))
    ).sum()
    exact = torch.autograd.grad(mean_bound, encoder + decoder)
    found = torch.autograd.grad(by_density(model, x, noise).sum(), encoder + decoder)
    for one, other in zip(found, exact, strict=True):
        assert_close(one, other, rtol=0, atol=0.02 * float(max(g.abs().max() for g in exact)))
    assert_close(found[len(encoder) :], exact[len(encoder) :])


def test_one_draw_has_no_mean_taken_off():
    model, x = VAE(6, 5, 2).double(), (torch.rand(3, 6) > 0.5).double()
    noise = torch.randn(1, 3, 2, dtype=torch.float64)
    guess = model.encode(x)
    z = sample(*guess, noise).detach()
    fit = log_bernoulli(model.decode(z), x)
    expected = (fit + fit.detach() * log_normal(z, *guess))[0] - divergence(*guess)
    assert_close(by_density(model, x, noise), expected)


def test_the_mean_over_the_other_draws_is_taken_off():
    draws = Gradients(torch.randn(5, 2, 4), torch.randn(5, 2, 4), torch.randn(5, 2, 1) - 4)
    found = mean_off(draws)
    for i in range(5):
        others = torch.stack([draws.value[j] for j in range(5) if j != i]).mean(0)
        assert_close(found[i], draws.density[i] / draws.value[i] * (draws.value[i] - others))
    alone = mean_alone(draws)
    assert torch.equal(alone[..., :2], draws.through[..., :2])
    assert torch.equal(alone[..., 2:], found[..., 2:])


def test_no_multiple_of_the_score_leaves_less_variance():
    draws = Gradients(torch.randn(50, 2, 4), torch.randn(50, 2, 4), torch.randn(50, 2, 1) - 4)
    best = regressed(draws)
    multiple = ((draws.density - best) / draws.score)[0]
    for other in (0.9, 1.1):
        assert (best.var(0) < (draws.density - other * multiple * draws.score).var(0)).all()


def test_a_fitted_baseline_is_exact_for_quadratic_functions():
    """If log p(x|z) is a quadratic function of z without mixed terms, each draw is the exact gradient, and
    otherwise the mean is unbiased.
    """
    mean, log_variance = torch.randn(2, 3, 2, dtype=torch.float64)
    scale, noise = (log_variance / 2).exp(), torch.randn(40_000, 3, 2, dtype=torch.float64)
    z = mean + scale * noise
    score = torch.cat((noise / scale, (noise.square() - 1) / 2), -1)
    value = (2 * z - z.square() - 5).sum(-1, keepdim=True)
    exact = torch.cat((2 - 2 * mean, -(scale**2)), -1)
    found = fitted(Gradients(score, value * score, value))
    assert_close(found, exact.expand_as(found), rtol=1e-2, atol=1e-2)
    value = value + z.prod(-1, keepdim=True)
    exact = exact + torch.cat((mean.flip(-1), torch.zeros_like(mean)), -1)
    found = fitted(Gradients(score, value * score, value))
    error = found.std(0) / math.sqrt(len(found))
    assert error.max() < (value * score).std(0).max() / math.sqrt(len(found)) / 2
    assert ((found.mean(0) - exact).abs() < 5 * error + 1e-3).all()


def test_gradients_are_compared_on_test_digits_with_8_latent_variables(run_experiment, monkeypatch):
    given, compare = [], EXPERIMENT.compare_gradients

    def noted(run, model, x):
        given.append((model.latent, torch.equal(x, draw_digits(run).judge[:64])))
        compare(run, model, x)

    monkeypatch.setattr(EXPERIMENT, "compare_gradients", noted)
    run_experiment(vae)
    assert given == [(8, True)]


def test_the_variance_is_over_the_draws_of_both_outputs(part_of_run):
    at = Trial(Workshop(part_of_run()), Work(arm="reparameterised"), arm="reparameterised")
    draws = torch.tensor([[[0.0, 1.0], [5.0, 5.0]], [[2.0, 5.0], [5.0, 7.0]]])
    assert variance(at, Sweep(draws, None, {}))["variance"].tolist() == [5.0, 1.0]


def test_the_mixture_is_fitted_by_expectation_maximisation(part_of_run):
    """Images of two kinds are more probable than under independent pixels, and probabilities sum to 1."""
    kinds = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    x = kinds[torch.tensor([0] * 30 + [1] * 10)]
    at = Trial(Workshop(part_of_run(), Digits(x, x, x)), Work(arm="bound"), arm="bound")
    score, found = fit_mixture(at, 0.0)
    assert score == pytest.approx(found.model.log_probability(x).mean().item())
    assert score > log_bernoulli(x.mean(0).logit(eps=1e-6).expand_as(x), x).mean()
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    assert found.model.log_probability(images).exp().sum().item() == pytest.approx(1.0)


def test_digits_move_by_one_pixel_in_each_direction():
    one = torch.zeros(1, 1, 2, 2)
    one[..., 0, 1] = 1
    places = moved(one).view(9, 4, 4)
    assert sorted(map(tuple, places.nonzero()[:, 1:].tolist())) == [
        (y, x) for y in range(3) for x in (1, 2, 3)
    ]


def test_training_digits_are_shown_at_all_positions_and_others_at_one(part_of_run):
    run = part_of_run()
    digits = draw_digits(run)
    sizes = {name: part.shape for name, part in digits._asdict().items()}
    assert sizes == {"train": (9 * 898, 100), "choose": (180, 100), "judge": (719, 100)}
    unmoved = digits.train.view(9, -1, 100)
    assert torch.equal(unmoved.sum(-1), unmoved[:1].sum(-1).expand(9, -1))  # no ink is cut off
    assert len(unmoved.unique(dim=0)) == 9
    first = digits.judge.view(-1, 10, 10).any(2).int().argmax(1).bincount()  # first row with ink
    assert first.count_nonzero() >= 3


def test_how_much_sooner():
    def ratio(ours: Trained, theirs: Trained) -> float:
        sweeps = {"bound": Sweep(ours, None, {}), "wake-sleep": Sweep(theirs, None, {})}
        (found,) = sooner(Table(sweeps=sweeps))[""].values()
        return found

    theirs = Trained(VAE(1, 1, 1), [(40, -3.0), (80, -2.0), (120, -2.5)], 120)
    ours = Trained(VAE(1, 1, 1), [(40, -1.9), (80, -1.5), (120, -1.0)], 120)
    assert ratio(ours, theirs) == 2.0
    assert ratio(theirs, theirs) == 1.0
    assert ratio(theirs, ours) == 1.0  # the level is not reached, so this is the upper limit
    assert ratio(Trained(VAE(1, 1, 1), [], 120), theirs) == 80 / 120


def test_the_experiment_runs(run_experiment):
    record = run_experiment(vae)
    curves = record.curves["test bound"]
    assert curves.keys() == {"bound, rate 0.03", "wake-sleep, rate 0.03"}
    values = {event["claim"]["name"]: event["values"] for event in record.claims}
    ours, theirs = (curves[f"{arm}, rate 0.03"][-1][1] for arm in ("bound", "wake-sleep"))
    assert values["lower bound against wake-sleep"]["bound, bound - wake-sleep"] == pytest.approx(
        ours - theirs
    )
    known = {arm: record.values["test log-likelihood (nats)", arm] for arm in ("bound", "wake-sleep")}
    found = values["likelihood against wake-sleep"]["log-likelihood, bound - wake-sleep"]
    assert found == pytest.approx(known["bound"] - known["wake-sleep"])
    assert {artifact["name"] for artifact in record.artifacts} == {"samples", "reconstructions", "plane"}


def test_the_set_up_is_the_stated_one():
    assert digest(EXPERIMENT) == "910b0dc3508b"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(vae)] == ["bound"]


def test_the_stated_cost_matches_torchs_count():
    batch, pixels, hidden, latent = size = 3, 7, 5, 2
    model = VAE(pixels, hidden, latent)
    x, noise = (torch.rand(batch, width).requires_grad_() for width in (pixels, latent))
    stated = cost(*size, itemsize=4)
    with FlopCounterMode(display=False) as counter:
        out = model(x, noise)
        assert counter.get_total_flops() == stated["forward"].flops
        out.sum().backward()
    assert counter.get_total_flops() == stated["forward+backward"].flops
