"""HiFi-GAN's generator compared with transformers', discriminators with loops over periods, and losses by
hand.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.data.sources import DataSource
from readtrack.data.splits import Parts
from readtrack.papers import hifigan
from readtrack.papers.hifigan import (
    V1,
    V2,
    V3,
    Generator,
    PeriodDiscriminator,
    ScaleDiscriminator,
    Version,
    discriminator_loss,
    feature_loss,
    from_released,
    generator_loss,
)
from readtrack.papers.hifigan.experiment import Sounds, again, area, periods, recorded, scales
from readtrack.papers.hifigan.training import PIECE, Pair, adversarial

EXPERIMENT = importlib.import_module("readtrack.papers.hifigan.experiment")  # the hook has the same name
SMALL = Version(12, (4, 2), (8, 4), (3, 5), ((1, 3, 5), (1, 3, 5)))


def theirs_of(version: Version, bands: int) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=bands,
        upsample_initial_channel=version.channels,
        upsample_rates=list(version.strides),
        upsample_kernel_sizes=list(version.kernels),
        resblock_kernel_sizes=list(version.blocks),
        resblock_dilation_sizes=[list(d) for d in version.dilations],
        normalize_before=False,
    )
    return transformers.SpeechT5HifiGan(config)


@pytest.mark.parametrize("frames", [1, 7])
def test_the_generator_matches_transformers(assert_parity, frames):
    ours, theirs = Generator(SMALL, 6), theirs_of(SMALL, 6)
    for weight in ours.parameters():
        nn.init.normal_(weight, 0.0, 0.3)
    assert_parity(
        lambda w, mel: functional_call(ours, w, (mel,)),
        lambda w, mel: functional_call(theirs, w, (mel.mT,)),
        (torch.randn(2, 6, frames),),
        weights=dict(ours.named_parameters()),
    )


@pytest.mark.parametrize(
    ("version", "count"), [(V1, 13_926_017), (V2, 925_985), (V3, 1_462_273)], ids=["V1", "V2", "V3"]
)
def test_the_papers_sizes(version, count):
    with torch.device("meta"):
        ours = Generator(version)
    assert sum(weight.numel() for weight in ours.parameters()) == count
    if not version.single:
        theirs = theirs_of(version, 80)
        named = {name: weight.shape for name, weight in theirs.named_parameters()}
        assert named == {name: weight.shape for name, weight in ours.named_parameters()}


def test_released_weights_sound_as_in_transformers():
    """Loads weights with weight norms, as they are saved, and without; also with the authors' own names."""
    theirs, mel = theirs_of(SMALL, 6).eval(), torch.randn(2, 6, 7)
    for weight in theirs.parameters():
        nn.init.normal_(weight, 0.0, 0.3)
    with torch.no_grad():
        wanted = theirs(mel.mT)
    plain = theirs.state_dict()
    theirs.apply_weight_norm()
    normed = theirs.state_dict()
    assert len(normed) > len(plain)
    released = {"mean": plain["mean"], "scale": plain["scale"]}
    for name in Generator(SMALL, 6).normed().state_dict():
        for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
            if name.endswith(new):
                short = name.replace(f"parametrizations.weight.{new}", old)
                released[short.replace("upsampler", "ups")] = normed[name]
        if name.endswith("bias"):
            released[name.replace("upsampler", "ups")] = plain[name]
    for weights in (plain, normed, released):
        ours = Generator(SMALL, 6)
        ours.load_state_dict(from_released(weights))
        assert_close(ours(mel), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="the generator has no parameter discriminators"):
        from_released({"discriminators.0.weight": torch.zeros(1)})


def test_a_generator_and_its_judges_learn_in_turns(part_of_run):
    pair, train = Pair(periods(), scales()), 0.1 * torch.randn(5, PIECE)
    before = [weight.clone() for judges in pair for weight in judges.parameters()]
    model = adversarial(part_of_run(), train, pair)
    torch.manual_seed(0)
    fresh = Generator(hifigan.training.TOY, 40).normed()
    moved = [(a - b).abs().max() > 0 for a, b in zip(model.parameters(), fresh.parameters(), strict=True)]
    assert all(moved)
    after = [weight for judges in pair for weight in judges.parameters()]
    assert sum((a != b).any() for a, b in zip(after, before, strict=True)) > 0.9 * len(before)
    assert model(torch.randn(1, 40, 20)).shape == (1, PIECE)


def test_a_frame_becomes_the_strides_product_of_samples():
    for version, hop in ((V3, 256), (SMALL, 8)):
        with torch.device("meta"):
            wave = Generator(version)(torch.empty(1, 80, 5))
        assert wave.shape == (1, 5 * hop)
    with pytest.raises(ValueError, match="difference must be even"):
        Generator(Version(8, (5,), (10,), (3,), ((1,),)))


def test_norms_change_no_sound():
    plain = Generator(SMALL, 6)
    mel = torch.randn(1, 6, 5)
    before = plain(mel)
    normed = plain.normed()
    assert_close(normed(mel), before)
    assert all(parametrize.is_parametrized(part) for part in normed.modules() if isinstance(part, nn.Conv1d))


@pytest.mark.parametrize("length", [30, 31, 34])
def test_a_judge_of_a_period_sees_each_phase_alone(length):
    """One-dimensional convolutions on each column of the reshaped wave separately."""
    judge = PeriodDiscriminator(5, (4, 6), 7).double()
    wave = torch.randn(2, length, dtype=torch.float64)
    scores, features = judge(wave)
    short = -length % 5
    padded = torch.cat((wave, wave[:, length - 1 - short : length - 1].flip(1)), 1)
    for phase in range(5):
        x = padded[:, None, phase::5]
        for index, layer in enumerate([*judge.convs, judge.conv_post]):
            x = F.conv1d(x, layer.weight[..., 0], layer.bias, layer.stride[0], layer.padding[0])
            if index < len(judge.convs):
                x = F.leaky_relu(x, 0.1)
            assert_close(features[index][..., phase], x)
        assert_close(scores.view(2, -1, 5)[..., phase], x[:, 0])


def test_judges_of_scales_see_means():
    judges = scales().double()
    judges.eval()
    wave = torch.randn(2, 256, dtype=torch.float64)
    padded = F.pad(wave, (2, 2))
    half = torch.stack([padded[:, 2 * i : 2 * i + 4].mean(1) for i in range(129)], 1)
    assert_close(judges(wave)[1][0], judges.discriminators[1](half)[0])
    norms = [type(parametrize_of(one)).__name__ for one in judges.discriminators]
    assert norms == ["_SpectralNorm", "_WeightNorm", "_WeightNorm"]


def parametrize_of(judge: ScaleDiscriminator) -> nn.Module:
    return judge.convs[0].parametrizations.weight[0]


def test_the_papers_judges():
    """Periods 2, 3, 5, 7 and 11 with 41 million weights in total, and scales with 30 million, from the
    authors' code.
    """
    with torch.device("meta"):
        by_period, by_scale = hifigan.Periods(), hifigan.Scales()
    counts = [sum(weight.numel() for weight in judges.parameters()) for judges in (by_period, by_scale)]
    assert counts == [41_105_770, 29_618_821]
    assert [judge.period for judge in by_period.discriminators] == [2, 3, 5, 7, 11]
    wave = torch.randn(1, 100)
    layers = periods()(wave)
    assert [len(features) for _, features in layers] == [5] * 5


def test_losses_are_the_equations():
    real = [(torch.tensor([[0.5, 1.0]]), [torch.ones(2), torch.zeros(3)])]
    fake = [(torch.tensor([[0.2, -0.4]]), [torch.zeros(2), torch.full((3,), 0.5)])]
    assert discriminator_loss(real, fake).item() == pytest.approx(0.125 + 0.1)
    assert generator_loss(fake).item() == pytest.approx((0.64 + 1.96) / 2)
    assert feature_loss(real, fake).item() == pytest.approx(2 * (1 + 0.5))
    assert discriminator_loss(real * 2, fake * 2) == 2 * discriminator_loss(real, fake)


def test_the_area_is_the_share_of_pairs():
    class Loudness(nn.Module):
        def forward(self, wave):
            return [(wave.square().mean(1, keepdim=True), []), (wave.square().mean(1, keepdim=True), [])]

    real, made = torch.tensor([[2.0], [3.0]]), torch.tensor([[1.0], [3.0]])
    assert area(Loudness(), Sounds(real, made)).tolist() == [0.5, 0.75]


def test_made_phases_keep_the_magnitudes():
    from readtrack.data import audio, speech

    generator = torch.Generator().manual_seed(0)
    wave = speech.say([1], speech.VOICE, generator).wave
    other = again(wave, generator, 32)
    found, wanted = (audio.stft(one, window=256, hop=80).abs() for one in (other, wave))
    assert (found - wanted).norm() < 0.25 * wanted.norm()
    assert torch.corrcoef(torch.stack((other, wave)))[0, 1].abs() < 0.9


def test_the_arms_have_as_many_weights():
    sizes = [sum(weight.numel() for weight in make().parameters()) for make in (periods, scales)]
    assert max(sizes) <= 1.05 * min(sizes), sizes
    assert [judge.period for judge in periods().discriminators] == [2, 3, 5, 7, 11]


def test_the_set_up_is_the_stated_one():
    assert digest(EXPERIMENT) == "a92d7a871526"


def test_the_experiment_runs(run_experiment):
    record = run_experiment(hifigan)
    assert {artifact["name"] for artifact in record.artifacts} == {
        "speech",
        "generator",
        "Griffin-Lim, 8 rounds",
        "Griffin-Lim, 64 rounds",
        "waves",
        "from mels, generator",
        "from mels, Griffin-Lim",
    }


def test_with_data_judges_and_generator_hear_its_sounds(tones, run_experiment):
    record = run_experiment(hifigan, speech="tones")
    assert {arm for name, arm in record.values if name == "log-spectral distance from mels (dB)"} == {
        "generator",
        "Griffin-Lim",
    }
    assert {artifact["name"] for artifact in record.artifacts} == {
        "from mels, generator",
        "from mels, Griffin-Lim",
    }


def test_the_middle_second_of_a_recorded_sound(part_of_run, monkeypatch):
    ramp = torch.arange(1, 40_001) / 50_000  # 2.5 seconds at 16 kHz
    short = torch.cat((torch.ones(12_000) / 2, torch.zeros(28_000)))
    part = torch.stack((ramp, short)), torch.zeros(2, dtype=torch.long)
    run = part_of_run()
    source = DataSource("long", Parts(part, part, part), ("",), 16_000)
    monkeypatch.setattr(run, "source", lambda kind, **asked: source)
    (long, brief), *_ = recorded(run)
    assert (len(long), len(brief)) == (8000, 6000)
    assert torch.equal((long[1:] - long[:-1]).sign(), torch.ones(7999))
    assert (long[0] / long[-1]).item() == pytest.approx(6000 / 14_000, rel=1e-3)


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(hifigan)] == ["sound", "sound by a version"]
