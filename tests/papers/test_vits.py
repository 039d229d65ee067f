"""VITS compared with transformers' model, complete and by parts, and the flows with their Jacobians and
inverses.
"""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.testing import assert_close

from readtrack.papers import vits
from readtrack.papers.glow_tts import mask_of
from readtrack.papers.hifigan import Version
from readtrack.papers.vits import (
    VITS,
    DurationFlow,
    MeanFlow,
    Sizes,
    SplineCoupling,
    StochasticDurations,
    from_released,
    path_of,
    pieces,
    spline,
)
from readtrack.papers.vits.arms import Blind, Drawn, LogNormal, OneDuration
from readtrack.papers.vits.experiment import (
    DRAWS,
    PACES,
    RATE_DEVIATION,
    RATES,
    batch,
    draw,
    draw_from_table,
    middle,
    ranked_probability,
    say,
    utter,
)
from readtrack.papers.vits.voice import Said, measured

EXPERIMENT = importlib.import_module("readtrack.papers.vits.experiment")  # the hook has the same name

SMALL = Sizes(
    symbols=9,
    bins=7,
    hidden=8,
    latents=6,
    ffn=12,
    layers=2,
    posterior=3,
    couplings=2,
    depth=2,
    version=Version(12, (4, 2), (8, 4), (3, 5), ((1, 3, 5), (1, 3, 5))),
    durations=2,
)
LENGTHS = torch.tensor([6, 4])
MASK = mask_of(LENGTHS, 6, torch.zeros(1, dtype=torch.float64))


def config(**fields):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    small = {
        "vocab_size": 9,
        "spectrogram_bins": 7,
        "hidden_size": 8,
        "flow_size": 6,
        "ffn_dim": 12,
        "num_hidden_layers": 2,
        "posterior_encoder_num_wavenet_layers": 3,
        "prior_encoder_num_flows": 2,
        "prior_encoder_num_wavenet_layers": 2,
        "depth_separable_num_layers": 2,
        "upsample_initial_channel": 12,
        "upsample_rates": [4, 2],
        "upsample_kernel_sizes": [8, 4],
        "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    }
    return transformers.VitsConfig(**{**small, **fields})


def theirs_of(**fields) -> nn.Module:
    import transformers

    return transformers.VitsModel(config(**fields)).eval()


def folded(model: nn.Module) -> nn.Module:
    """The model without weight norms, whose two tensors correspond to one of ours."""
    for part in list(model.modules()):
        if parametrize.is_parametrized(part):
            parametrize.remove_parametrizations(part, "weight")
    return model


def names_of(theirs: nn.Module) -> dict[str, str]:
    """The reference's name for each of ours."""
    names = [name for name, _ in theirs.named_parameters()]
    places = from_released({name: torch.tensor(place) for place, name in enumerate(names)})
    return {ours: names[place] for ours, place in places.items()}


def random_weights(module: nn.Module, scale: float = 0.3) -> nn.Module:
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(scale * torch.randn_like(weight))
    return module


class Speaks(nn.Module):
    """The whole model with `speak` as its forward pass."""

    def __init__(self, model: VITS) -> None:
        super().__init__()
        self.model = model

    def forward(self, text, symbols):
        torch.manual_seed(5)
        wave, lasts = self.model.speak(text, symbols)
        return wave, lasts.sum(1) * 8


def test_the_whole_matches_transformers(assert_parity, monkeypatch):
    """Compares waves, and the gradients of all weights that affect them, for rows of 6 and 4 symbols."""
    theirs, ours = folded(theirs_of()), random_weights(VITS(SMALL), 0.2).eval()
    names = names_of(theirs)
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.randn(x.mT.shape).to(x).mT)
    text, inside = torch.randint(9, (2, 6)), MASK[:, 0].long()

    def reference(w):
        torch.manual_seed(5)
        named = {names[name.removeprefix("model.")]: weight for name, weight in w.items()}
        result = functional_call(theirs, named, (text, inside))
        return result.waveform, result.sequence_lengths

    speaks = Speaks(ours)
    wave, ends = speaks(text, LENGTHS)
    assert wave.shape[1] == ends.max() > 8 * 6
    assert wave.std() > 1e-3
    assert_parity(
        lambda w: functional_call(speaks, w, (text, LENGTHS)),
        reference,
        (),
        weights={f"model.{name}": weight for name, weight in ours.named_parameters()},
    )


def test_released_weights_load_and_speak_alike(monkeypatch):
    theirs, ours = random_weights(theirs_of(), 0.1), VITS(SMALL).eval()
    ours.load_state_dict(from_released(dict(theirs.named_parameters())))
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.randn(x.mT.shape).to(x).mT)
    text = torch.randint(9, (1, 5))
    wave, ends = Speaks(ours)(text, torch.tensor([5]))
    torch.manual_seed(5)
    result = theirs(text)
    assert_close(wave, result.waveform, atol=1e-4, rtol=1e-3)
    assert torch.equal(ends, result.sequence_lengths)
    with pytest.raises(ValueError, match="multi-speaker"):
        from_released({"embed_speaker.weight": torch.zeros(2, 2)})


def test_the_papers_sizes():
    """transformers' default with folded norms; its weights have our names and shapes."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    with torch.device("meta"):
        ours, theirs = VITS(Sizes()), transformers.VitsModel(transformers.VitsConfig())
        assert sum(weight.numel() for weight in theirs.parameters()) == 36_284_592
        mapped = from_released({name: weight.data for name, weight in theirs.named_parameters()})
    assert {name: one.shape for name, one in mapped.items()} == {
        name: one.shape for name, one in ours.named_parameters()
    }


def test_the_posterior_and_the_flow_match_transformers(assert_parity):
    theirs, ours = folded(theirs_of()), random_weights(VITS(SMALL))
    spectrogram, latents = torch.randn(2, 7, 6), torch.randn(2, 6, 6) * MASK.float()
    for part, other, given, call in (
        (ours.posterior_encoder, theirs.posterior_encoder, spectrogram, lambda result: result[1:]),
        (ours.flow, theirs.flow, latents, lambda result: result),
    ):
        assert_parity(
            lambda w, x, part=part: functional_call(part, w, (x, MASK)),
            lambda w, x, other=other, call=call: call(functional_call(other, w, (x, MASK))),
            (given,),
            weights=dict(part.named_parameters()),
        )


@pytest.mark.parametrize("inverse", [False, True])
def test_the_spline_matches_transformers(assert_parity, inverse):
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.models.vits import modeling_vits

    x = torch.cat((4 * torch.randn(40), torch.tensor([-5.0, 5.0, 0.0, 9.0])))
    assert (x.abs() > 5).any()
    assert_parity(
        lambda *given: spline(*given, inverse=inverse),
        lambda *given: modeling_vits._unconstrained_rational_quadratic_spline(*given, reverse=inverse),
        (x[:40], *(torch.randn(40, n) for n in (10, 10, 9))),
    )
    y, logs = spline(x.double(), *(torch.zeros(44, n).double() for n in (10, 10, 9)), inverse=inverse)
    assert_close(y[x.abs() > 5], x[x.abs() > 5].double())
    assert (logs[x.abs() > 5] == 0).all()


def test_the_spline_at_its_limits():
    with pytest.raises(ValueError, match="knots between"):
        spline(torch.zeros(2), torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, 4))
    x = torch.tensor([-5.0, 5.0])
    assert_close(spline(x, *(torch.randn(2, n) for n in (10, 10, 9)))[0], x)
    wide = torch.tensor([7.0, -7.0], requires_grad=True)
    shape = [torch.randn(2, n, requires_grad=True) for n in (10, 10, 9)]
    sum(one.sum() for one in spline(wide, *shape)).backward()
    assert wide.grad.tolist() == [1.0, 1.0]
    assert all((one.grad == 0).all() for one in shape)


def test_a_coupling_of_durations_matches_transformers(assert_parity):
    theirs, ours = theirs_of().duration_predictor.flows[1], random_weights(SplineCoupling(8, 3, 2))
    assert_parity(
        lambda w, x, given: functional_call(ours, w, (x, MASK, given)),
        lambda w, x, given: functional_call(theirs, w, (x, MASK, given)),
        (2 * torch.randn(2, 2, 6), torch.randn(2, 8, 6)),
        weights=dict(ours.named_parameters()),
    )


def test_the_bound_of_durations_matches_transformers_parts(assert_parity, monkeypatch):
    """In training, transformers' flows have one more permutation than in synthesis, so they are not
    inverse to each other. Its documentation says that it does not support training. Here its modules are
    combined as in synthesis.
    """
    import transformers.models.vits.modeling_vits as module

    monkeypatch.setattr(
        module.VitsElementwiseAffine, "forward", flipped(module.VitsElementwiseAffine.forward)
    )
    noise, randn = torch.randn(2, 2, 6), torch.randn
    monkeypatch.setattr(
        torch, "randn", lambda *shape, **kind: noise if shape == (2, 2, 6) else randn(*shape, **kind)
    )
    theirs, ours = theirs_of().duration_predictor, random_weights(StochasticDurations(8, 3, 2, 4)).eval()
    names = {
        one.removeprefix("duration_predictor."): other.removeprefix("duration_predictor.")
        for one, other in names_of(folded(theirs_of())).items()
        if one.startswith("duration_predictor.")
    }
    durations = torch.randint(1, 9, (2, 1, 6)) * MASK
    text = torch.randn(2, 8, 6)
    named = dict(ours.named_parameters())
    assert_parity(
        lambda w: functional_call(ours, w, (text.double(), MASK, durations, noise.double())),
        lambda w: functional_call(
            theirs, {names[name]: one for name, one in w.items()}, (text.double(), MASK, None, durations)
        ),
        (),
        weights=named,
    )


def flipped(forward):
    """The affine coupling, followed by a permutation that undoes the next one."""

    def call(self, inputs, padding_mask, global_conditioning=None, reverse=False):
        outputs, log = forward(self, inputs, padding_mask, global_conditioning, reverse)
        return torch.flip(outputs, [1]), log

    return call


def test_both_flows_are_exact_within_their_masks():
    flow = random_weights(MeanFlow(SMALL)).double()
    x = torch.randn(2, 6, 6, dtype=torch.float64) * MASK
    assert_close(flow.inverse(flow(x, MASK), MASK), x)
    assert_close(flow(x, MASK)[1:, :, :4], flow(x[1:, :, :4], MASK[1:, :, :4]))
    pair, given = torch.randn(1, 2, 4, dtype=torch.float64), torch.randn(1, 8, 4, dtype=torch.float64)
    mask = torch.ones(1, 1, 4, dtype=torch.float64)
    durations = random_weights(DurationFlow(8, 3, 2, 3)).double()
    z, log = durations(pair, mask, given)
    assert_close(durations.inverse(z, mask, given), pair)
    jacobian = torch.autograd.functional.jacobian(
        lambda flat: durations(flat.view(1, 2, 4), mask, given)[0], pair.flatten()
    )
    assert_close(log[0], torch.linalg.slogdet(jacobian.reshape(8, 8))[1])
    assert_close(durations.sample(z, mask, given)[:, :1], pair[:, :1])


def test_both_flows_begin_as_the_identity():
    x = torch.randn(2, 6, 6)
    assert torch.equal(MeanFlow(SMALL)(x, MASK.float()), x * MASK.float())
    assert all((one.conv_post.weight == 0).all() for one in MeanFlow(SMALL).flows)
    assert (SplineCoupling(8, 3, 2).conv_proj.weight == 0).all()


def given() -> tuple:
    text = torch.randint(9, (2, 4))
    spectrogram, noise, rhythm = torch.randn(2, 7, 9), torch.randn(2, 6, 9), torch.randn(2, 2, 4)
    return text, torch.tensor([4, 2]), spectrogram, torch.tensor([9, 5]), noise, rhythm


def test_the_divergence_matches_torchs_and_padding_changes_nothing():
    model = random_weights(VITS(SMALL), 0.2).double().eval()
    text, symbols, spectrogram, frames, noise, rhythm = given()
    spectrogram, noise, rhythm = spectrogram.double(), noise.double(), rhythm.double()
    result = model(text, symbols, spectrogram, frames, noise, rhythm)
    alone = model(
        text[1:, :2], symbols[1:], spectrogram[1:, :, :5], frames[1:], noise[1:, :, :5], rhythm[1:, :, :2]
    )
    assert_close(result.divergence[1:], alone.divergence)
    assert_close(result.durations[1:], alone.durations)
    assert result.path.sum((1, 2)).tolist() == [9, 5]
    mask = torch.ones(1, 1, 5, dtype=torch.float64)
    mean, logs = model.posterior_encoder(spectrogram[1:, :, :5], mask)
    posterior = torch.distributions.Normal(mean, logs.exp())
    _, centre, deviation = model.text_encoder(text[1:, :2], torch.ones(1, 1, 2, dtype=torch.float64))
    path = alone.path.double()
    prior = torch.distributions.Normal((path.mT @ centre).mT, (path.mT @ deviation).mT.exp())
    wanted = posterior.log_prob(alone.latents) - prior.log_prob(model.flow(alone.latents, mask))
    assert_close(alone.divergence, wanted.sum((1, 2)))


def test_every_weight_learns_and_durations_stay_apart():
    model = random_weights(VITS(SMALL), 0.1)
    result = model(*given())
    result.durations.sum().backward(retain_graph=True)
    touched = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert touched == {"duration_predictor"}
    (result.divergence.sum() + model.decoder(pieces(result.latents, [5, 0], 4)).sum()).backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_windows_and_paths():
    x = torch.arange(12.0).view(2, 1, 6)
    assert pieces(x, [1, 3], 2).tolist() == [[[1, 2]], [[9, 10]]]
    path = path_of(torch.tensor([[2, 1, 3], [1, 1, 0]]), 6).int()
    assert path[0].tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert path[1].sum() == 2


def test_temperatures_and_length():
    model = random_weights(VITS(SMALL), 0.1).eval()
    text, symbols = torch.randint(9, (1, 5)), torch.tensor([5])

    def speak(seed: int, **settings: float):
        with torch.no_grad():
            return model.speak(text, symbols, torch.Generator().manual_seed(seed), **settings)

    assert torch.equal(speak(0)[0], speak(0)[0])
    assert torch.equal(speak(0, temperature=0.0, rhythm=0.0)[0], speak(1, temperature=0.0, rhythm=0.0)[0])
    assert not torch.equal(speak(0, rhythm=0.0)[0], speak(1, rhythm=0.0)[0])
    slow, fast = speak(0, length=4.0)[1], speak(0, length=1.0)[1]
    assert slow.sum() > 2 * fast.sum()


def test_scores_are_their_definitions():
    drawn, truth = torch.tensor([[1.0, 4.0], [3.0, 4.0]]), torch.tensor([2.0, 7.0])
    assert ranked_probability(drawn, truth) == pytest.approx(((1 - 0.5 * 2) + 3) / 2)
    assert middle(
        torch.arange(10.0).view(10, 1).expand(10, 3), torch.tensor([4.5, 0.0, 20.0])
    ) == pytest.approx(1 / 3)


def test_the_measured_values_of_a_sound():
    tone = 0.5 * (torch.arange(8000) * 2 * torch.pi * 500 / 8000).sin()
    values = measured(torch.cat((tone, torch.zeros(8000))))
    assert values["seconds"] == 2.0
    assert values["peak"] == pytest.approx(0.5, abs=1e-3)
    assert values["share clipped"] == 0.0
    assert values["share of frames 40 dB below the loudest"] == pytest.approx(0.5)
    assert values["share of power below 1 kHz"] > 0.99
    assert measured(torch.ones(8000))["share clipped"] == 1.0
    assert measured(torch.randn(8000))["flatness"] > 0.8


def test_the_arms_and_the_set_up():
    assert RATES == (0.01, 0.03, 0.09)
    assert (DRAWS, RATE_DEVIATION, PACES) == (24, 0.15, (1.25, 1.0, 0.8))
    assert (Drawn.ROUNDS, OneDuration.ROUNDS) == (1, 2)
    drawn, one = Drawn(), OneDuration()
    assert {name: w.shape for name, w in one.conv_dds.named_parameters()} == {
        name: w.shape for name, w in drawn.conv_dds.named_parameters()
    }
    text, mask, durations = torch.randn(1, 16, 3), torch.ones(1, 1, 3), torch.full((1, 1, 3), 4.0)
    torch.nn.init.zeros_(one.out.weight)
    torch.nn.init.constant_(one.out.bias, torch.tensor(3.5).log().item())
    assert one.loss(text, mask, durations, text).item() == pytest.approx(0.0, abs=1e-5)


def test_the_more_words_the_faster():
    generator = torch.Generator().manual_seed(0)
    means = [
        torch.stack([utter([8] * count, generator).durations[1:-1].double().mean() for _ in range(60)]).mean()
        for count in (1, 2, 3)
    ]
    assert means[0] > 1.1 * means[1] > 1.1 * 1.1 * means[2]


def test_a_table_draws_the_phonemes_values(part_of_run):
    """This holds for any sentence; unheard phonemes may get any value, and padding gets none."""
    run = part_of_run()
    train, judge = say(run, "train", 3), say(run, "judge", 4)
    drawn, mask, truth = draw_from_table(run, train, judge)
    assert drawn.shape == (DRAWS, *mask.shape)
    assert (drawn[:, ~mask] == 0).all()
    phonemes = torch.cat([one.spoken.phonemes for one in train])
    durations = torch.cat([one.spoken.durations for one in train])
    for row, one in enumerate(judge):
        assert truth[row, : len(one.spoken.durations)].tolist() == one.spoken.durations.tolist()
        for place, phoneme in enumerate(one.spoken.phonemes.tolist()):
            known = durations[phonemes == phoneme]
            known = known if len(known) else durations
            assert set(drawn[:, row, place].tolist()) <= set(known.tolist())


def test_the_table_consists_of_training_durations(run_experiment, monkeypatch):
    """The sizes of the smoke run's parts are 6 and 4, so that they differ."""
    given = []

    def noted(run, train, said):
        given.append((len(train), len(said)))
        return draw_from_table(run, train, said)

    monkeypatch.setattr(EXPERIMENT, "draw_from_table", noted)
    run_experiment(vits)
    assert given == [(6, 4)]


def test_draws_are_whole_frames_rounded_up_and_padding_has_none(part_of_run):
    run = part_of_run()
    said = [Said(utter(words, torch.Generator().manual_seed(0)), torch.zeros(1)) for words in ([8], [8, 8])]
    one = OneDuration()
    torch.nn.init.zeros_(one.out.weight)
    torch.nn.init.constant_(one.out.bias, math.log(3.2))
    drawn, mask, truth = draw(run, one, said, "judge")
    assert drawn[:, mask].unique().tolist() == [4.0]
    assert not drawn[:, ~mask].any()
    assert truth[0, mask[0]].tolist() == said[0].spoken.durations.tolist()


def test_the_features_name_the_phonemes_and_the_words(part_of_run):
    run = part_of_run()
    said = [Said(utter(words, torch.Generator().manual_seed(0)), torch.zeros(1)) for words in ([8], [8, 8])]
    features, _, _ = batch(run, said)
    assert said[0].spoken.phonemes[:3].tolist() == said[1].spoken.phonemes[:3].tolist()
    apart = (features[1] - features[0])[:, :3].mT
    assert_close(apart[1:3], apart[:1].expand(2, -1))
    assert apart[0].abs().max() > 0.1


def test_the_experiment_runs(run_experiment):
    record = run_experiment(vits)
    assert [artifact["kind"] for artifact in record.artifacts] == ["image", *["audio"] * 4, "table", "image"]
    curves = record.curves[record.headline_curve]
    assert curves.keys() == {"drawn", "one", "table"}
    for arm, points in curves.items():
        assert [temperature for temperature, _ in points] == [0, 0.25, 0.5, 0.75, 1, 1.25]
        assert points[4][1] == record.values["test ranked probability score (frames)", arm]


def test_a_null_run_has_two_predictors_of_their_own(run_experiment):
    claim = run_experiment(vits, null=True).claims[-1]
    assert claim["values"]["ranked probability score (frames), one / drawn"] != 1.0


def test_the_log_normal_matches_torchs():
    """Its loss is the negative log-likelihood up to a constant, and its samples have the same
    distribution.
    """
    rival, text = LogNormal(), torch.randn(2, 16, 5)
    mask, durations = torch.ones(2, 1, 5), torch.randint(1, 9, (2, 1, 5)).float()
    mean, deviation = rival.out(rival.conv_dds(rival.conv_pre(text), mask)).chunk(2, 1)
    normal = torch.distributions.Normal(mean, deviation.exp())
    expected = -(normal.log_prob((durations - 0.5).log()) + math.log(math.tau) / 2).sum((1, 2))
    assert_close(rival.loss(text, mask, durations, mask), expected)
    noise = torch.randn(2, 2, 5)
    assert_close(rival.sample(text, mask, noise), mean + noise[:, :1] * deviation.exp())


def test_without_the_sentence_all_symbols_are_one_to_the_flow():
    blind, mask, noise = Blind(), torch.ones(2, 1, 5), torch.randn(1, 2, 5).expand(2, -1, -1)
    drawn = blind.sample(torch.randn(2, 16, 5), mask, noise)
    assert_close(drawn[0], drawn[1])


def test_without_noise_nothing_is_drawn(run_experiment):
    claim = run_experiment(vits, broken="no noise").claims[-1]
    assert claim["values"]["symbols within the middle 80 % of the draws"] <= 0.5


def test_every_variant_is_right(check_benchmark):
    assert [case.name for case in check_benchmark(vits)] == ["spline", "text to wave"]
