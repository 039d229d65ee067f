"""The autoencoder written out, CCA and the classifier compared with scikit-learn's, gates that are initially
closed, and the arms.
"""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from sklearn.cross_decomposition import CCA as TheirCCA
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from readtrack.checks.constants import digest
from readtrack.papers import multimodal
from readtrack.papers.gpt2 import GPT2
from readtrack.papers.multimodal import (
    Flamingo,
    GatedCrossAttention,
    MultimodalAutoencoder,
    fit_cca,
    fit_reader,
    reconstruction_loss,
    task,
)

experiment_module = importlib.import_module("readtrack.papers.multimodal.experiment")

SIZES = {"image": 5, "sound": 3}


def small() -> MultimodalAutoencoder:
    return MultimodalAutoencoder(SIZES, SIZES, hidden=7, code=4)


def dense(w: dict[str, Tensor], layer: str, x: Tensor) -> Tensor:
    return x @ w[f"{layer}.weight"].T + w[f"{layer}.bias"]


def written_out(w: dict[str, Tensor], image: Tensor, sound: Tensor) -> list[Tensor]:
    """The code and both outputs, with zeros for a missing modality."""
    hidden = [dense(w, "encoders.image", image).clamp(min=0), dense(w, "encoders.sound", sound).clamp(min=0)]
    code = dense(w, "shared", torch.cat(hidden, 1)).tanh()
    above = dense(w, "unshared", code).clamp(min=0)
    return [code, dense(w, "decoders.image", above), dense(w, "decoders.sound", above)]


@pytest.mark.parametrize("there", [("image", "sound"), ("image",), ("sound",)])
def test_a_missing_modality_is_zeros(assert_parity, there):
    network = small().double()

    def ours(w: dict[str, Tensor], image: Tensor, sound: Tensor) -> list[Tensor]:
        present = {name: x for name, x in (("image", image), ("sound", sound)) if name in there}
        code = functional_call(Part(network, "code"), {f"whole.{n}": t for n, t in w.items()}, (present,))
        made = functional_call(network, w, (present,))
        return [code, made["image"], made["sound"]]

    def theirs(w: dict[str, Tensor], image: Tensor, sound: Tensor) -> list[Tensor]:
        return written_out(w, image * ("image" in there), sound * ("sound" in there))

    inputs = [torch.randn(6, size) for size in SIZES.values()]
    assert_parity(ours, theirs, inputs, weights=dict(network.named_parameters()))


class Part(nn.Module):
    """A module whose forward pass is a method of another module."""

    def __init__(self, whole: nn.Module, method: str) -> None:
        super().__init__()
        self.whole, self.method = whole, method

    def forward(self, *inputs: object) -> object:
        return getattr(self.whole, self.method)(*inputs)


def test_tripled_data_are_both_and_each_alone(assert_parity):
    network = small().double()

    def ours(w: dict[str, Tensor], image: Tensor, sound: Tensor) -> Tensor:
        weights = {f"whole.{name}": tensor for name, tensor in w.items()}
        return functional_call(Part(network, "tripled"), weights, ({"image": image, "sound": sound},))

    def theirs(w: dict[str, Tensor], image: Tensor, sound: Tensor) -> Tensor:
        images, sounds = torch.cat((image, image, 0 * image)), torch.cat((sound, 0 * sound, sound))
        return written_out(w, images, sounds)[0]

    inputs = [torch.randn(6, size) for size in SIZES.values()]
    assert_parity(ours, theirs, inputs, weights=dict(network.named_parameters()))


def test_an_image_alone_gives_both():
    """Figure 3a, and rejected inputs."""
    network = MultimodalAutoencoder({"image": 5}, SIZES, hidden=7, code=4)
    made = network({"image": torch.randn(6, 5)})
    assert {name: tuple(x.shape) for name, x in made.items()} == {"image": (6, 5), "sound": (6, 3)}
    for wrong in ({}, {"sound": torch.randn(6, 3)}):
        with pytest.raises(ValueError, match=r"subset of \['image'\]"):
            network.code(wrong)


def test_targets_are_always_all_of_them():
    wanted = {"image": torch.randn(2, 5), "sound": torch.randn(2, 3)}
    made = {"image": torch.randn(6, 5), "sound": torch.randn(6, 3)}
    expected = sum(
        ((made[name].view(3, 2, -1) - wanted[name]) ** 2).sum() / made[name].numel() for name in SIZES
    )
    assert_close(reconstruction_loss(made, wanted), expected)


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_its_parts_fire(silent_parts, training):
    silent = silent_parts(small().train(training), {"sound": torch.randn(2, 3)})
    assert silent == {"encoders", "decoders"}


def test_half_precision(assert_half_precision):
    network = MultimodalAutoencoder({"image": 96, "sound": 64}, {"image": 96}, hidden=64, code=32)

    def ours(w: dict[str, Tensor], image: Tensor, sound: Tensor) -> Tensor:
        return functional_call(network, w, ({"image": image, "sound": sound},))["image"]

    assert_half_precision(
        ours,
        lambda *inputs: written_out_image(*inputs),
        [torch.randn(32, 96), torch.randn(32, 64)],
        weights=dict(network.named_parameters()),
    )


def written_out_image(w: dict[str, Tensor], image: Tensor, sound: Tensor) -> Tensor:
    def linear(layer: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"])

    hidden = torch.cat((linear("encoders.image", image).relu(), linear("encoders.sound", sound).relu()), 1)
    return linear("decoders.image", linear("unshared", linear("shared", hidden).tanh()).relu())


# CCA and the classifier


def test_cca_matches_scikit_learn():
    common = torch.randn(400, 2, dtype=torch.float64)
    x = common @ torch.randn(2, 5, dtype=torch.float64) + torch.randn(400, 5, dtype=torch.float64)
    y = common @ torch.randn(2, 4, dtype=torch.float64) + torch.randn(400, 4, dtype=torch.float64)
    found = fit_cca(x, y, 2, ridge=0.0)
    theirs = TheirCCA(2, tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
    pairs = zip(theirs.transform(x.numpy(), y.numpy()), (x, y), strict=True)
    for side, (scores, raw) in enumerate(pairs):
        for k in range(2):
            both = torch.stack((torch.from_numpy(scores[:, k].copy()), found.project(raw, side)[:, k]))
            assert abs(torch.corrcoef(both)[0, 1].item()) == pytest.approx(1, abs=1e-4)
    mine = [
        torch.corrcoef(torch.stack((found.project(x, 0)[:, k], found.project(y, 1)[:, k])))[0, 1]
        for k in (0, 1)
    ]
    assert_close(torch.stack(mine), found.correlations)


def test_the_reader_is_ridge_regression():
    codes, labels = torch.randn(50, 6) * 3 + 1, torch.randint(3, (50,))
    reader = fit_reader(codes, labels, 3, ridge=0.1)
    x = (codes.double() - codes.double().mean(0)) / codes.double().std(0)
    theirs = Ridge(alpha=0.1 * 50).fit(x.numpy(), F.one_hot(labels, 3).double().numpy())
    assert_close(reader(codes), torch.from_numpy(theirs.predict(x.numpy())))


# Flamingo's gates


def test_gates_begin_shut_and_open():
    language = GPT2(20, context=6, model=12, heads=3, layers=2, std=0.5).double()
    model = Flamingo(language, context=5).double()
    ids, seen = torch.randint(20, (2, 6)), torch.randn(2, 3, 5, dtype=torch.float64)
    assert torch.equal(model(ids, seen), language(ids))
    model(ids, seen)[..., 0].sum().backward()
    assert all((gated.gates.grad != 0).all() for gated in model.gated)
    assert all(weight.grad is None for weight in language.parameters())
    for gated in model.gated:
        nn.init.constant_(gated.gates, 0.5)
    assert not torch.allclose(model(ids, seen), model(ids, seen + 1))


def test_gated_attention_is_its_formula(assert_parity):
    block = GatedCrossAttention(6, 2, context=4).double()

    def formula(w: dict[str, Tensor], x: Tensor, seen: Tensor) -> Tensor:
        def norm(x: Tensor, i: int) -> Tensor:
            return F.layer_norm(x, (6,), w[f"norms.{i}.weight"], w[f"norms.{i}.bias"])

        q = (norm(x, 0) @ w["attention.query.weight"].T).unflatten(-1, (2, 3))
        k, v = ((seen @ w[f"attention.{n}.weight"].T).unflatten(-1, (2, 3)) for n in ("key", "value"))
        weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) / 3**0.5).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)
        x = x + w["gates"][0].tanh() * (mixed @ w["attention.output.weight"].T)
        return x + w["gates"][1].tanh() * dense(
            w, "feed_forward.2", F.gelu(dense(w, "feed_forward.0", norm(x, 1)))
        )

    weights = {name: torch.randn(weight.shape) / 2 for name, weight in block.named_parameters()}
    assert_parity(
        lambda w, x, seen: functional_call(block, w, (x, seen)),
        formula,
        [torch.randn(2, 3, 6), torch.randn(2, 5, 4)],
        weights=weights,
    )


# The task


def test_keys_sound_as_on_a_telephone():
    """Without noise, the loudest frequencies are the key's row and column, detuned by at most 3 %."""
    digits = torch.arange(10)
    wave = task.waves(digits, torch.Generator().manual_seed(0), noise=0.0)
    power = torch.fft.rfft(wave * torch.hann_window(task.SAMPLES)).abs()
    hertz = torch.arange(power.shape[1]) * task.RATE / task.SAMPLES
    pitches = {1: (697, 1209), 5: (770, 1336), 9: (852, 1477), 0: (941, 1336), 4: (770, 1209)}
    for digit, (row, column) in pitches.items():
        for pitch, low, high in ((row, 600, 1050), (column, 1100, 1600)):
            band = (hertz > low) & (hertz < high)
            loudest = hertz[band][power[digit][band].argmax()].item()
            assert abs(loudest / pitch - 1) < 0.03 + 0.01
    assert task.spectra(wave).shape == (10, task.FEATURES["sound"])


# Experiment and benchmark


def test_the_set_up_is_the_stated_one():
    assert digest(experiment_module) == "f0c239eb943e"
    assert (task.IMAGE_NOISE, task.SOUND_NOISE) == (0.4, 0.7)
    alone = experiment_module.autoencoder(("image",), ("image",))
    with_sound = experiment_module.autoencoder(("image",), ("image", "sound"))
    encoder = {n: w.shape for n, w in alone.named_parameters() if not n.startswith("decoders")}
    assert encoder == {n: w.shape for n, w in with_sound.named_parameters() if not n.startswith("decoders")}
    assert alone.shared.out_features == 32


def test_arms_of_the_shared_code_see_the_same_and_owe_something_else():
    """Each pair occurs three times, as computed by hand. With one modality, the control must reconstruct
    only that one.
    """
    network = small()
    image, sound = torch.randn(2, 5), torch.randn(2, 3)
    batch = task.Pairs(image, sound, torch.zeros(2, dtype=torch.long))
    both = network({"image": image, "sound": sound})
    from_image, from_sound = network({"image": image}), network({"sound": sound})

    def loss(name: str, *made: dict[str, Tensor]) -> Tensor:
        wanted = getattr(batch, name)
        return torch.stack([F.mse_loss(one[name], wanted) for one in made]).mean()

    ours = sum(loss(name, both, from_image, from_sound) for name in SIZES)
    control = loss("image", both, from_image) + loss("sound", both, from_sound)
    assert_close(experiment_module.both_from_either(network, batch), ours)
    assert_close(experiment_module.each_from_itself(network, batch), control)
    assert_close(experiment_module.whole(network, batch), sum(loss(name, both) for name in SIZES))


def test_the_experiment_runs(run_experiment):
    record = run_experiment(multimodal)
    assert record.headline_curve == "accuracy over the sound's noise"
    claims = {claim["claim"]["name"]: claim for claim in record.claims}
    assert claims["output with closed gates"]["verdict"] == "held"
    assert [artifact["kind"] for artifact in record.artifacts] == ["table", "image"]


def test_other_sounds_are_heard_in_training_alone(part_of_run):
    run = part_of_run()
    whole = task.draw(run, 40)
    mixed = experiment_module.with_other_sounds(run, whole)
    assert torch.equal(mixed.train.image, whole.train.image)
    assert not torch.equal(mixed.train.sound, whole.train.sound)
    assert torch.equal(mixed.train.sound.sort(0).values, whole.train.sound.sort(0).values)
    for part in ("labelled", "choose", "judge"):
        for mine, theirs in zip(getattr(mixed, part), getattr(whole, part), strict=True):
            assert torch.equal(mine, theirs)


def test_each_image_is_judged_in_four_noises(part_of_run):
    judge = task.draw(part_of_run(), 40).judge
    images, sounds, digits = (part.unflatten(0, (4, -1)) for part in judge)
    assert (digits == digits[0]).all()
    assert not torch.equal(images[0], images[1])
    assert (images - images.mean(0)).std().item() == pytest.approx(task.IMAGE_NOISE * 0.75**0.5, rel=0.05)
    assert not torch.equal(sounds[0], sounds[1])
    right = torch.tensor([1.0, 0, 0, 0, 1, 1, 1, 0])
    assert experiment_module.of_images(right).tolist() == [0.75, 0.25]


def test_the_rivals_codes_are_unit_vectors_of_one_modality():
    towers = experiment_module.Towers()
    batch = task.Pairs(torch.randn(4, 64), torch.randn(4, task.FEATURES["sound"]), torch.zeros(4).long())
    image, sound = (towers.code(batch.present(name)) for name in ("image", "sound"))
    assert_close(image.norm(dim=1), torch.ones(4))
    scores = 5 * image @ sound.T
    expected = (F.cross_entropy(scores, torch.arange(4)) + F.cross_entropy(scores.T, torch.arange(4))) / 2
    assert_close(experiment_module.contest(towers, batch), expected)


def test_each_row_is_judged_by_a_reader_of_the_other_modality(part_of_run):
    data = task.draw(part_of_run(), 40)

    def code(present):
        ((name, features),) = present.items()
        return features[:, :30] + (name == "sound")

    right = experiment_module.judged(code, data, data.judge, of="sound", on="image")
    reader = experiment_module.reader(code, data, "sound")
    named = reader(data.judge.image[:, :30]).argmax(1)
    assert right.tolist() == [float(one == two) for one, two in zip(named, data.judge.digit, strict=True)]


def test_every_variant_is_right(check_benchmark):
    (case,) = check_benchmark(multimodal)
    assert case.name == "codes of the augmented data"
