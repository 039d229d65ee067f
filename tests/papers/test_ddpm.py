"""Diffusion compared with diffusers' schedulers and U-Net, Bayes' rule by quadrature, and its bound."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import ddpm
from readtrack.papers.ddpm import Perceptron, Schedule, UNet, linear_schedule, timestep_embedding
from readtrack.papers.ddpm.experiment import (
    Way,
    ancestral,
    average,
    bound_weights,
    composed,
    ddim,
    equal_weights,
    heavy_start,
    train,
)
from readtrack.papers.ddpm.weights import from_released
from readtrack.runs.trial import Trial, Work, Workshop
from readtrack.scores.digit_features import digit_features

experiment = importlib.import_module("readtrack.papers.ddpm.experiment")  # the hook has the same name
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")


def in_float64(scheduler, schedule: Schedule):
    """Replace diffusers' float32 tables by ours, so that steps can be compared exactly."""
    scheduler.betas = schedule.beta
    scheduler.alphas, scheduler.alphas_cumprod = 1 - schedule.beta, (1 - schedule.beta).cumprod(0)
    scheduler.one = torch.ones((), dtype=torch.float64)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.one
    return scheduler


def test_the_schedule_matches_diffusers():
    theirs = diffusers.DDPMScheduler(beta_start=1e-4, beta_end=0.02)
    assert_close(linear_schedule().beta.float(), theirs.betas)
    assert_close(linear_schedule().alpha_bar.float(), theirs.alphas_cumprod, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("small", [True, False])
def test_a_step_back_matches_diffusers(small, monkeypatch):
    schedule = linear_schedule()
    variance = "fixed_small" if small else "fixed_large"
    theirs = in_float64(diffusers.DDPMScheduler(variance_type=variance, clip_sample=False), schedule)
    module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    for step in (0, 1, 2, 500, 999):
        x, noise, draw = torch.randn(3, 4, 3, 5, 5, dtype=torch.float64)
        monkeypatch.setattr(module, lambda *_, draw=draw, **__: draw)
        expected = theirs.step(noise, step, x).prev_sample
        found = schedule.step(x, torch.full((4,), step), noise, draw, small=small)
        assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert_close(
            schedule.add_noise(x, torch.full((4,), step), noise),
            theirs.add_noise(x, noise, torch.full((4,), step)),
        )


def test_ddims_step_matches_diffusers():
    schedule = linear_schedule()
    theirs = in_float64(diffusers.DDIMScheduler(clip_sample=False), schedule)
    theirs.set_timesteps(50)
    for step in (0, 20, 980):
        x, noise = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64)
        expected = theirs.step(noise, step, x).prev_sample
        t = torch.full((4,), step)
        assert_close(schedule.ddim_step(x, t, t - 20, noise), expected, rtol=1e-9, atol=1e-9)


def test_the_posterior_is_bayes():
    """q(x_{t-1} | x_t, x_0) by quadrature over x_{t-1}, in one dimension."""
    schedule, t = linear_schedule(50, 0.002, 0.4), torch.tensor([7])
    x0, x = torch.tensor([[0.6]], dtype=torch.float64), torch.tensor([[-0.3]], dtype=torch.float64)
    grid = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    beta, before = schedule.beta[7], schedule.alpha_bar_before[7]
    log_density = -((grid - before.sqrt() * x0[0]) ** 2) / (2 * (1 - before))
    log_density -= (x[0] - (1 - beta).sqrt() * grid) ** 2 / (2 * beta)
    density = log_density.softmax(0)
    mean = (grid * density).sum()
    found, variance = schedule.posterior(x0, x, t)
    assert_close(found[0, 0], mean, rtol=1e-8, atol=1e-8)
    assert_close(variance[0], ((grid - mean) ** 2 * density).sum(), rtol=1e-6, atol=1e-9)
    kept = schedule.alpha_bar[7]
    noise = (x - kept.sqrt() * x0) / (1 - kept).sqrt()
    assert_close(schedule.mean(x, t, noise), found)


def test_noise_in_one_step_equals_noise_in_many():
    assert composed(linear_schedule(200, 5e-4, 0.1)) < 1e-12
    bent = Schedule(torch.full((3,), 0.1, dtype=torch.float64))
    object.__setattr__(bent, "beta", torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert_close(bent.alpha_bar, torch.tensor([0.9, 0.72, 0.504], dtype=torch.float64))


def test_the_bounds_weight_is_a_divergence():
    """Weight x |noise - predicted|^2 is the resulting increase of KL(q || p), by torch's distributions."""
    schedule, step = linear_schedule(50, 0.002, 0.4), 9
    t = torch.tensor([step])
    x0, noise, found = torch.randn(3, 1, 1, dtype=torch.float64)
    x = schedule.add_noise(x0, t, noise)
    mean, variance = schedule.posterior(x0, x, t)
    q = torch.distributions.Normal(mean[0, 0], variance[0].sqrt())

    def divergence(predicted):
        p = torch.distributions.Normal(schedule.mean(x, t, predicted)[0, 0], schedule.beta[step].sqrt())
        return torch.distributions.kl_divergence(q, p)

    gain = schedule.bound_weight(t)[0] * (noise - found)[0, 0] ** 2
    assert_close(divergence(found) - divergence(noise), gain)


def test_the_control_weighs_as_the_bound():
    schedule, t = linear_schedule(200, 5e-4, 0.1), torch.arange(200)
    weights = bound_weights(schedule, t)
    assert weights.mean().item() == pytest.approx(1)
    assert_close(weights / weights[0], schedule.bound_weight(t) / schedule.bound_weight(t)[0])
    assert weights[0] > 5 * weights[-1]
    assert (equal_weights(schedule, t) == 1).all()


def test_the_near_miss_keeps_the_bounds_weights_on_the_first_twentieth():
    schedule, t = linear_schedule(200, 5e-4, 0.1), torch.arange(200)
    bound, weights = bound_weights(schedule, t), heavy_start(schedule, t)
    assert weights.mean().item() == pytest.approx(1)
    assert_close(weights[:10] / weights[10:].mean(), bound[:10])
    assert_close(weights[10:], weights[10].expand(190))
    assert_close(heavy_start(schedule, t[[3, 150]]), weights[[3, 150]])


def theirs_of(ours: UNet, width: int, multiples, blocks: int, groups: int):
    levels = len(multiples)
    down = ["DownBlock2D"] * levels
    up = ["UpBlock2D"] * levels
    down[1], up[levels - 2] = "AttnDownBlock2D", "AttnUpBlock2D"
    return diffusers.UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        freq_shift=1,
        flip_sin_to_cos=False,
        downsample_padding=0,
        norm_eps=1e-6,
        norm_num_groups=groups,
        block_out_channels=[width * m for m in multiples],
        layers_per_block=blocks,
        attention_head_dim=None,
        down_block_types=down,
        up_block_types=up,
    )


def test_the_unet_matches_diffusers(assert_parity):
    sizes = {"width": 8, "multiples": (1, 2, 2), "blocks": 1, "groups": 4}
    ours = UNet(**sizes).eval()
    theirs = theirs_of(ours, **sizes).eval()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    t = torch.tensor([0, 999])
    assert_parity(
        lambda w, x: functional_call(ours, w, (x, t)),
        lambda w, x: functional_call(theirs, w, (x, t)).sample,
        (torch.randn(2, 3, 8, 12),),
        weights=dict(ours.named_parameters()),
        rtol=1e-7,
        atol=1e-8,
    )


def test_released_weights_run_in_these_lines():
    """Loads weights with the current names and with the original files' names, which diffusers renames."""
    sizes = {"width": 8, "multiples": (1, 2, 2), "blocks": 1, "groups": 4}
    theirs = theirs_of(None, **sizes).double().eval()
    x, t = torch.randn(2, 3, 8, 12, dtype=torch.float64), torch.tensor([0, 999])
    expected = theirs(x, t).sample
    new = theirs.state_dict()
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    old = {}
    for name, tensor in new.items():
        for now, was in names.items():
            name = name.replace(now, was)
        old[name] = tensor
    assert old.keys() != new.keys()
    renamed = dict(old)
    theirs._fix_state_dict_keys_on_load(renamed)
    assert from_released(old).keys() == renamed.keys() == new.keys()
    for released in (new, old):
        ours = UNet(**sizes).double().eval()
        ours.load_state_dict(from_released(released))
        assert_close(ours(x, t), expected, rtol=1e-9, atol=1e-9)


def test_the_papers_size():
    """Appendix B: 35.7 million parameters for 32 x 32 images; also the names of the released weights."""
    with torch.device("meta"):
        ours = UNet()
        theirs = theirs_of(ours, 128, (1, 2, 2, 2), 2, 32)
    assert sum(weight.numel() for weight in ours.parameters()) == 35_746_307
    shapes = [{n: w.shape for n, w in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert {block.dropout.p for block in ours.modules() if hasattr(block, "time_emb_proj")} == {0.1}


def test_the_embedding_reaches_both_ends():
    found = timestep_embedding(torch.tensor([0, 3]), 8)
    assert_close(found[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert_close(found[1, [0, 3]], torch.tensor([math.sin(3), math.sin(3e-4)]))


def test_the_perceptron_starts_with_zero_output_and_knows_the_time():
    model, x = Perceptron(6, 16, 2), torch.randn(2, 6)
    assert not model(x, torch.tensor([0, 5])).any()
    torch.nn.init.normal_(model.out[-1].weight)
    assert not torch.equal(model(x, torch.tensor([0, 5])), model(x, torch.tensor([9, 5])))


def test_a_shorter_chain_is_the_same_noise():
    schedule = linear_schedule()
    assert_close(schedule.of(torch.arange(1000)).beta, schedule.beta, rtol=1e-9, atol=1e-12)
    times = torch.arange(9, 1000, 10)
    assert_close(schedule.of(times).alpha_bar, schedule.alpha_bar[times])


def test_both_ways_back_find_digits_that_the_network_knows(part_of_run):
    """A network that knows one image perfectly: all chains end at this image, whatever the noise."""
    run, image = part_of_run(), torch.linspace(-1, 1, 64)
    schedule = linear_schedule(40, 0.0025, 0.5)

    class Knows(Perceptron):
        def forward(self, x, t):
            kept = schedule.alpha_bar[t].float()[:, None]
            return (x - kept.sqrt() * image) / (1 - kept).sqrt()

    knows = Knows(64)
    ways = (
        ancestral(run.generator("samples"), knows, schedule, 3),
        ancestral(run.generator("samples"), knows, schedule, 3, every=4),
        ancestral(run.generator("samples"), knows, schedule, 3, noisy=False),
        ddim(run, knows, schedule, 3, 10),
    )
    assert [len(states) for states in ways] == [41, 11, 41, 11]
    for states in ways:
        assert_close(states[0], ways[0][0])
        assert_close(states[-1], image.expand(3, 64), rtol=0, atol=1e-4)
    # Their intermediate images differ, and the chain with noise is never finished early.
    assert not torch.allclose(ways[0][39], ways[2][39], atol=1e-3)


def test_the_average_is_an_exponential_one():
    averaged, model = Perceptron(3, 4, 1), Perceptron(3, 4, 1)
    before = [mean.clone() for mean in averaged.parameters()]
    average(averaged, model, 0.75)
    for mean, was, now in zip(averaged.parameters(), before, model.parameters(), strict=True):
        assert_close(mean, 0.75 * was + 0.25 * now)


def test_samples_come_from_the_averaged_weights(part_of_run, monkeypatch):
    """The averaged weights are neither the first nor the last ones."""
    run, last = part_of_run(), []
    monkeypatch.setattr(
        experiment, "average", lambda mean, model, decay: last.append(model) or average(mean, model, decay)
    )
    _, found = train(trial(run), Way(equal_weights), 0.01)
    assert len(last) == 4
    assert found.model is not last[-1]
    assert not torch.equal(found.model.into.weight, last[-1].into.weight)


def trial(run):
    x = torch.rand(9, 64)
    eye = digit_features(run, run.source("images").grey(8))
    setting = experiment.Setting(x, x, x, eye, linear_schedule(40, 0.0025, 0.5))
    return Trial(Workshop(run, setting), Work(arm="simple"), arm="simple")


def test_steps_are_drawn_as_often_as_they_weigh(part_of_run, monkeypatch):
    times = {}
    forward = Perceptron.forward

    def noted(self, x, t):
        times.setdefault(way, []).extend(t.tolist() if len(t) > 1 else [])
        return forward(self, x, t)

    monkeypatch.setattr(Perceptron, "forward", noted)
    at = trial(part_of_run())
    for way in (Way(bound_weights), Way(bound_weights, by_importance=True)):
        train(at, way, 0.01)
    weights = bound_weights(linear_schedule(40, 0.0025, 0.5), torch.arange(40))
    for way, expected in zip(times, (1 / 40, weights[0].item() / 40), strict=True):
        share = times[way].count(0) / len(times[way])
        assert share == pytest.approx(expected, abs=4 * (expected / len(times[way])) ** 0.5)


def test_the_set_up_is_the_stated_one():
    assert digest(experiment) == "6c564d3d9bbb"


def test_the_experiment_runs(run_experiment):
    record = run_experiment(ddpm)
    pictures = {"digits out of noise", "digits by DDIM", "samples"}
    assert {artifact["name"] for artifact in record.artifacts} == pictures
    curves = record.curves[record.headline_curve]
    assert curves.keys() == {"simple", "bound"}
    for arm, points in curves.items():
        assert [steps for steps, _ in points] == [4, 40]
        assert points[-1][1] == record.values["test Fréchet distance", arm]


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(ddpm)] == ["a step back", "pictures"]
