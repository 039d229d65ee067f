"""DeepDream compared with the notebook's loops in NumPy and SciPy, its gradients, its tricks, and the
rules.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.papers import deepdream
from readtrack.papers.deepdream import Network, dream, energy, likeness, resize, step, timing
from readtrack.papers.deepdream import network as networks
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop


@pytest.fixture
def network() -> Network:
    torch.manual_seed(3)
    return Network(torch.eye(3) + 0.2, 5).double().requires_grad_(False)


def photograph(height: int = 30, width: int = 41, count: int = 1) -> torch.Tensor:
    # Away from 0 and 1, where values are clipped.
    return 0.2 + 0.6 * torch.rand(count, 3, height, width, dtype=torch.float64)


def rolled(x: np.ndarray, down: int, right: int) -> np.ndarray:
    """Rows and columns rolled cyclically, pixel by pixel."""
    height, width = x.shape[2:]
    rows = [(row - down) % height for row in range(height)]
    columns = [(column - right) % width for column in range(width)]
    return x[:, :, rows][:, :, :, columns]


def notebook(x, gradient, shifts, *, octaves, scale, steps, size):
    """The notebook's algorithm: a pyramid by zooming out, whose details are zoomed in."""
    sizes = [x]
    while len(sizes) < octaves:
        sizes.append(scipy.ndimage.zoom(sizes[-1], (1, 1, 1 / scale, 1 / scale), order=1))
    detail = np.zeros_like(sizes[-1])
    for base in sizes[::-1]:
        factors = [new / old for new, old in zip(base.shape, detail.shape, strict=True)]
        image = base + scipy.ndimage.zoom(detail, factors, order=1)
        for _ in range(steps):
            down, right = next(shifts)
            image = rolled(image, down, right)
            g = gradient(image)
            image = image + size / np.abs(g).mean() * g
            image = np.clip(rolled(image, -down, -right), 0, 1)
        detail = image - base
    return image


@pytest.mark.parametrize("depth", [1, 3])
def test_the_dream_is_the_notebooks(network, depth):
    def gradient(x: np.ndarray) -> np.ndarray:
        """The gradient of the activations with respect to themselves, as in the notebook."""
        image = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
        features = network.features(image, depth)
        features.backward(features.detach())
        return image.grad.numpy()

    x, arguments = photograph(45, 62), {"octaves": 3, "scale": 1.4, "steps": 3, "size": 0.02}
    draws = torch.Generator().manual_seed(5)
    shifts = iter([torch.randint(-4, 5, (2,), generator=draws).tolist() for _ in range(9)])
    expected = notebook(x.numpy(), gradient, shifts, **arguments)
    objective = partial(deepdream.seen, network, depth=depth)
    generator = torch.Generator().manual_seed(5)
    dreamt = dream(x, objective, generator=generator, jitter=4, **arguments)
    assert [image.shape[2:] for image in dreamt] == [(23, 31), (32, 44), (45, 62)]
    assert_close(dreamt[-1], torch.from_numpy(expected), rtol=0, atol=1e-11)
    assert (dreamt[-1] - x).abs().mean() > 0.02


@pytest.mark.parametrize("size", [(9, 13), (21, 30), (14, 20)])
def test_sizes_change_as_scipy_changes_them(size):
    x = photograph(14, 20)
    factors = (1, 1, size[0] / 14, size[1] / 20)
    assert_close(
        resize(x, *size).numpy(), scipy.ndimage.zoom(x.numpy(), factors, order=1), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("octaves", [1, 2, 4])
def test_without_steps_the_octaves_give_back_the_photograph(network, octaves):
    x = photograph(60, 83)
    dreamt = dream(x, network, generator=torch.Generator(), octaves=octaves, steps=0)
    assert len(dreamt) == octaves
    assert torch.equal(dreamt[-1], x)


def test_the_changes_of_the_octaves_sum_to_the_dream(network):
    x, added = photograph(48, 66), []
    objective = partial(deepdream.seen, network)

    def watched(image: torch.Tensor) -> torch.Tensor:
        return objective(image)

    dreamt = dream(x, watched, generator=torch.Generator().manual_seed(0), octaves=3, steps=2, jitter=2)
    bases = [resize(resize(x, 34, 47), 24, 34), resize(x, 34, 47), x]
    carried = torch.zeros_like(bases[0])
    for base, image in zip(bases, dreamt, strict=True):
        carried = resize(carried, *base.shape[2:])
        added.append(image - base - carried)
        carried = carried + added[-1]
    total = added[2] + resize(added[1] + resize(added[0], 34, 47), 48, 66)
    assert_close(x + total, dreamt[-1], rtol=0, atol=1e-13)
    assert all(part.abs().mean() > 1e-3 for part in added)


# Gradients


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_energys_gradient_is_its_finite_difference(network, depth):
    x = photograph(17, 19).requires_grad_()
    objective = partial(deepdream.seen, network, depth=depth)
    (gradient,) = torch.autograd.grad(objective(x).sum(), x)
    for _ in range(5):
        direction, small = torch.randn_like(x), 1e-6
        with torch.no_grad():
            slope = (objective(x + small * direction) - objective(x - small * direction)) / (2 * small)
        assert_close((gradient * direction).sum(), slope[0], rtol=1e-5, atol=1e-9)


def test_gradcheck_of_both_objectives(network):
    x, guide = photograph(9, 10).requires_grad_(), network.features(photograph(12, 9), 2)
    assert torch.autograd.gradcheck(lambda x: energy(network.features(x, 2)), x)
    assert torch.autograd.gradcheck(lambda x: likeness(network.features(x, 2), guide), x)


def test_the_guide_pulls_each_place_to_its_best_fit():
    """The notebook returns, at each position, the guide's features with the largest dot product."""
    features = torch.randn(1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    guide = torch.randn(1, 4, 2, 6, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(likeness(features, guide).sum(), features)
    for row in range(3):
        for column in range(5):
            places = guide[0].flatten(1).unbind(1)
            best = max(places, key=lambda place: (features[0, :, row, column] @ place).item())
            assert_close(gradient[0, :, row, column] * 15, best)


# Steps


def test_a_step_has_its_size_in_each_image(network):
    x = photograph(count=3)
    x[1] *= 0.1  # independent of the gradient's size
    moved = step(x + 0.05, partial(deepdream.seen, network, depth=2), size=0.001)
    assert_close((moved - x - 0.05).abs().mean((1, 2, 3)), torch.full((3,), 0.001).double())


@pytest.mark.parametrize("shift", [(0, 0), (7, -5), (-40, 100)])
def test_the_shift_is_taken_back(shift):
    x = photograph()
    target = torch.rand_like(x)
    # Positions are independent here, so that a shift changes nothing.
    moved = step(x, lambda image: (image**3).sum((1, 2, 3)), size=0.01, shift=shift)
    assert_close(moved, step(x, lambda image: (image**3).sum((1, 2, 3)), size=0.01))
    still = step(x, lambda image: (image * target.roll(shift, (2, 3))).sum((1, 2, 3)), size=0.0, shift=shift)
    assert torch.equal(still, x)


def test_a_step_leaves_its_input_and_the_range_alone(network):
    x = torch.rand(1, 3, 20, 20, dtype=torch.float64)
    before = x.clone()
    moved = step(x, partial(deepdream.seen, network, depth=1), size=0.5)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert moved.min() == 0
    assert moved.max() == 1


def test_the_same_seed_dreams_the_same(network):
    x, objective = photograph(), partial(deepdream.seen, network)
    first, again, other = (
        dream(x, objective, generator=torch.Generator().manual_seed(seed), octaves=2, steps=2, jitter=3)[-1]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# The network


def test_flat_surfaces_are_not_seen(network):
    flat = torch.rand(2, 3, 1, 1, dtype=torch.float64).expand(-1, -1, 16, 16)
    assert network.features(flat, 1).abs().max() < 1e-12


def test_the_activity_matches_torchs_layers(network):
    """The first layer as a convolution of mixed colours, and the norm by hand."""
    x = photograph(16, 20)
    first, second = network.layers[:2]
    mixed = torch.einsum("bihw,ji->bjhw", x, network.colors)
    flat = first.weight - first.weight.mean((2, 3), keepdim=True)
    conv = torch.nn.Conv2d(3, 16, 5, padding=2, padding_mode="reflect", dtype=torch.float64)
    conv.weight.data, conv.bias.data = flat, first.bias
    one = F.relu(conv(mixed))
    half = F.avg_pool2d(one, 2)
    half = half / (half.pow(2).mean(1, keepdim=True) + 0.01).sqrt()
    two = F.relu(F.conv2d(half, second.weight, second.bias, padding=1))
    assert_close(network.features(x, 1), one)
    assert_close(network.features(x, 2), two)


def test_a_lesson_shows_the_photographs_and_digits():
    wall = torch.rand(3, 240, 720)
    ink, labels = torch.zeros(7, 1, 32, 32), torch.arange(7)
    ink[:, :, 8:24, 8:24] = 1
    lesson = partial(networks.lesson, wall, ink, labels)
    patches, target = lesson(400, torch.Generator().manual_seed(0))
    again, _ = lesson(400, torch.Generator().manual_seed(0))
    assert torch.equal(patches, again)
    digits = (target < 10).float().mean().item()
    assert 0.2 < digits < 0.4
    assert target[target < 10].max() == 6
    assert target.max() == 9 + networks.ROWS * networks.COLUMNS
    extremes = (patches - 0.5).abs().amax((1, 2, 3)) > 0.49
    assert extremes[target < 10].float().mean() > 0.9


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(deepdream)
    assert record.curves["loss"].keys() == {
        f"{subject} dreamer, {arm} subject" for subject in ("temple", "flower") for arm in ("same", "other")
    }
    assert record.curves["energy / start"]["temple"][-1][1] > 1
    pictures = {artifact["name"] for artifact in record.artifacts}
    assert pictures == {"dream", "octaves", "layers", "guided", "digits"}


@pytest.fixture
def a_trial(part_of_run) -> Trial:
    run = part_of_run()
    photographs = {subject: torch.rand(1, 3, 60, 90) for subject in deepdream.SUBJECTS}
    judges = {subject: deepdream.judge(run, subject, image) for subject, image in photographs.items()}
    world = deepdream.World(photographs, torch.rand(2, 3, 24, 32), judges)
    return Trial(Workshop(run, world), Work(arm="same subject"), arm="same subject")


def test_dreamers_and_judges_share_no_weights(a_trial):
    _, found = deepdream.dream_of_both(a_trial, deepdream.Plan(lambda at, networks: {}), None)
    made = [*found.dreamers.values(), *a_trial.world.judges.values()]
    first = [network.layers[0].weight for network in made]
    assert len(first) == 4
    assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_each_judge_sees_the_dreams_of_its_subject_or_of_the_other(a_trial):
    assert deepdream.OTHER == {"temple": "flower", "flower": "temple"}
    small, judges = a_trial.world.small, a_trial.world.judges
    dreams = {
        subject: deepdream.climb(a_trial.run, subject, network, small)[0]
        for subject, network in judges.items()
    }
    for dreamer_of in (deepdream.SAME, deepdream.OTHER):
        found = deepdream.of_networks(dreamer_of, a_trial, judges)
        for subject, dreamer in dreamer_of.items():
            assert torch.equal(found[subject], dreams[dreamer])
        logs = [
            (deepdream.seen(judge, dreams[dreamer_of[subject]]) / deepdream.seen(judge, small)).log()
            for subject, judge in judges.items()
        ]
        sweep = Sweep(deepdream.Dreamt(judges, found), None, {})
        (value,) = deepdream.what_judges_see(a_trial, sweep).values()
        assert value == pytest.approx(torch.cat(logs).mean().exp().item(), rel=1e-5)


def test_a_blend_changes_as_much_as_the_dream(a_trial):
    small, networks = a_trial.world.small, a_trial.world.judges
    dreams = deepdream.of_networks(deepdream.SAME, a_trial, networks)
    images = deepdream.blended(a_trial, networks)
    assert torch.equal(images["temple"][0], small[0])
    assert torch.equal(images["flower"][1], small[1])
    assert_close((images["flower"] - small)[0].norm(), (dreams["flower"] - small)[0].norm())
    direction = F.cosine_similarity(
        (images["flower"] - small)[0].flatten(), (small[1] - small[0]).flatten(), dim=0
    )
    assert direction.item() == pytest.approx(1)


def test_random_phases_keep_colours_and_spatial_frequencies():
    x = 0.4 + 0.2 * torch.rand(1, 3, 40, 61, dtype=torch.float64)  # too little contrast for clipping
    x[:, 1] = (x[:, 0] + x[:, 1]) / 2
    x = (x + x.roll(1, 2) + x.roll(1, 3)) / 3
    found = deepdream.scrambled(x, torch.Generator().manual_seed(1))
    before, after = (torch.fft.fft2(image).abs() for image in (x, found))
    assert_close(after, before)
    assert_close(found.mean((2, 3)), x.mean((2, 3)))
    assert_close(found[0].flatten(1).cov(), x[0].flatten(1).cov())
    assert torch.corrcoef(torch.stack((x.flatten(), found.flatten())))[0, 1].abs() < 0.3


@pytest.mark.parametrize("phases", [False, True])
def test_networks_are_trained_on_their_photograph_or_on_its_random_phases(a_trial, monkeypatch, phases):
    shown = []
    monkeypatch.setattr(deepdream, "train", lambda run, arm, photograph, *rest: shown.append(photograph))
    deepdream.dream_of_both(a_trial, deepdream.Plan(lambda at, networks: {}, phases), None)
    for (subject, photograph), image in zip(a_trial.world.photographs.items(), shown, strict=True):
        phased = deepdream.scrambled(photograph, a_trial.generator(f"{subject} phases"))
        assert torch.equal(image, phased if phases else photograph)


@pytest.mark.parametrize(
    ("broken", "depth", "phases"),
    [("", None, False), ("first layer", 1, False), ("random phases", None, True)],
)
def test_the_plan_of_each_arm(part_of_run, monkeypatch, broken, depth, phases):
    made, judged, judge = {}, {}, deepdream.judge

    def judge_noted(run, subject, photograph):
        judged[subject] = photograph
        return judge(run, subject, photograph)

    def watched(at, plan, point):
        made[at.name] = plan
        small, networks = at.world.small, dict(at.world.judges)
        return 1.0, deepdream.Dreamt(networks, dict.fromkeys(deepdream.SUBJECTS, small))

    for part in ("amplify", "draw"):
        monkeypatch.setattr(deepdream, part, lambda *arguments: None)
    monkeypatch.setattr(deepdream, "dream_of_both", watched)
    monkeypatch.setattr(deepdream, "judge", judge_noted)
    deepdream.experiment(part_of_run(broken=broken))
    assert made["same subject"].phases is phases
    assert made["same subject"].dreams.args == (deepdream.SAME,)
    assert made["same subject"].dreams.keywords.get("depth") == depth
    assert not made["other subject"].phases
    assert made["other subject"].dreams.args == (deepdream.OTHER,)
    assert not made["other subject"].dreams.keywords
    for subject, photograph in zip(("temple", "flower"), data.photographs(240).split(1), strict=True):
        assert torch.equal(judged[subject], photograph)


def test_a_dream_takes_steps_of_the_notebooks_size(a_trial, monkeypatch):
    sizes = []
    monkeypatch.setattr(deepdream, "step", lambda images, own, size: sizes.append(size) or images)
    deepdream.climb(a_trial.run, "temple", a_trial.world.judges["temple"], a_trial.world.small)
    assert sizes == [1.5 / 255] * 3


def test_the_learning_rate_rises_and_falls():
    network, rates = Network(torch.eye(3), 34), []

    def descend(loss, optimizer, step):
        networks.descend_silently(loss, optimizer, step)
        rates.append(optimizer.param_groups[0]["lr"])

    ink, draws = torch.zeros(2, 1, 32, 32), torch.Generator().manual_seed(0)
    networks.learn(network, torch.rand(3, 60, 90), ink, torch.arange(2), draws, 10, range(10), descend)
    assert max(rates) == pytest.approx(0.006)
    assert rates[0] < 0.001
    assert rates[-1] < 1e-6


def test_the_set_up_is_the_stated_one():
    assert digest(deepdream) == "78bf877bd538"


def test_every_variant_is_right(check_benchmark):
    assert {case.name for case in check_benchmark(deepdream)} == {"dream step", "more at every size"}


@pytest.mark.parametrize("other", [timing.every_gradient, timing.channels_last])
def test_all_ways_make_the_same_step(other):
    """In float64 they agree almost exactly; the benchmark's check allows for rounding."""
    inputs = [x.double() for x in timing.benchmark_inputs(torch.Generator().manual_seed(3), 32)]
    moved = timing.one_step(*inputs)
    assert_close(other(*inputs), moved, rtol=0, atol=1e-12)
    assert (moved - inputs[0]).abs().max() > 0.02


def test_the_stated_cost_matches_torchs_count():
    image, colors, *weights = timing.benchmark_inputs(torch.Generator().manual_seed(0), 24)
    with FlopCounterMode(display=False) as counter:
        timing.one_step(image, colors, *weights)
    stated = timing.cost(24, 36, itemsize=4)["forward"].flops
    assert 0.9 < counter.get_total_flops() / stated < 1.1
