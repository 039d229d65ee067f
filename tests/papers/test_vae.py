"""The variational autoencoder against torch's distributions and an integral, the gradients, and the rules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack.papers import vae
from readtrack.papers.vae import VAE, divergence, log_bernoulli, log_likelihood, log_normal, sample


class Reference(nn.Module):
    """The same networks from torch's layers, the bound from torch's distributions and its own sample."""

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
    "read": "trunk.0",
    "mean": "heads.0",
    "log_variance": "heads.1",
    "imagine": "decoder.0",
    "write": "decoder.2",
}


def as_reference(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = ((name.split("."), weight) for name, weight in weights.items())
    return {f"{THEIR_NAMES[layer]}.{kind}": weight for (layer, kind), weight in parts}


@pytest.mark.parametrize("size", [(7, 5, 3), (1, 2, 1), (9, 4, 6)])
def test_the_bound_is_that_of_torchs_distributions(assert_parity, size):
    ours, theirs = VAE(*size), Reference(*size)
    assert_parity(
        lambda w, x, noise: functional_call(ours, w, (x, noise)),
        lambda w, x, noise: functional_call(theirs, as_reference(w), (x, noise)),
        (torch.rand(4, size[0]), torch.randn(4, size[2])),
        weights=dict(ours.named_parameters()),
    )


def test_the_sample_is_torchs():
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
    """The integral over a single latent variable is log p(x): many samples find it, the bound is below."""
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
    through, density, value = vae.gradient_draws(model, x, noise)
    guess = [tensor.detach().requires_grad_() for tensor in model.encode(x)]
    mean_value = log_bernoulli(model.decode(sample(*guess, noise)), x).mean(0)
    exact = torch.cat(torch.autograd.grad(mean_value.sum(), guess), -1)
    assert_close(through.mean(0), exact, rtol=1e-9, atol=1e-11)
    error = density.std(0) / math.sqrt(len(noise))
    assert ((density.mean(0) - exact).abs() < 5 * error).all()
    assert_close(value[..., 0].mean(0), mean_value)


def test_each_half_of_wake_sleep_trains_its_own_part():
    model, x = VAE(6, 5, 2), (torch.rand(4, 6) > 0.5).float()
    noise, dream = torch.randn(2, 4, 2)
    vae.wake_sleep(model, x, noise, dream, torch.rand(4, 6)).sum().backward()
    with torch.no_grad():
        causes = sample(*model.encode(x), noise)
    awake = log_bernoulli(model.decode(causes), x).sum()
    decoder = [*model.imagine.parameters(), *model.write.parameters()]
    for weight, alone in zip(decoder, torch.autograd.grad(awake, decoder), strict=True):
        assert_close(weight.grad, alone)
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())


def test_the_papers_network_for_mnist():
    """784 pixels, 500 hidden units, 20 latent variables: five layers with biases."""
    encoder, decoder = 784 * 500 + 500 + 2 * (500 * 20 + 20), 20 * 500 + 500 + 500 * 784 + 784
    assert sum(w.numel() for w in vae.skeleton(784, 500, 20).parameters()) == encoder + decoder == 815_824


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(vae)
    assert record.curves["held-out bound, 8 latent variables"].keys() == {
        "bound, rate 0.003",
        "wake-sleep, rate 0.003",
    }
    likelihood = record.values["held-out log-likelihood (nats)", "variational autoencoder"]
    over = record.claims[0]["values"]["log-likelihood over the bound (nats)"]
    assert over == likelihood - record.values["held-out bound (nats)", ""]
    assert {artifact["name"] for artifact in record.artifacts} == {"samples", "reconstructions", "plane"}


@pytest.mark.parametrize("claim", [vae.LIKELIHOOD, vae.BETTER, vae.NOISE], ids=lambda claim: claim.name)
def test_the_rules_can_fail(claim):
    held = {bound.metric: bound.threshold for bound in claim.rule}
    assert claim.judge(held) == "reproduced"
    for bound in claim.rule:
        wrong = 1e6 if bound.op == "<=" else -1e6
        assert claim.judge(held | {bound.metric: wrong}) == "not reproduced"


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(vae)] == ["bound"]


def test_the_stated_cost_is_what_torch_counts():
    size = (3, 7, 5, 2)
    x, noise, *weights = vae.benchmark_inputs(torch.Generator().manual_seed(0), *size)
    leaves = [tensor.requires_grad_() for tensor in (x, noise, *weights)]
    stated = vae.cost(*size, itemsize=4)
    with FlopCounterMode(display=False) as counter:
        out = vae.equation_10(vae.skeleton(*size[1:]), *leaves)
        assert counter.get_total_flops() == stated["forward"].flops
        out.sum().backward()
    assert counter.get_total_flops() == stated["forward+backward"].flops
