"""Weak-to-strong: the performance gap, the threshold by brute force, the loss by its formula, and the
rules.
"""

from __future__ import annotations

import math
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from readtrack import data
from readtrack.checks.constants import digest
from readtrack.claims import FALL
from readtrack.papers import weak_to_strong
from readtrack.papers.weak_to_strong import (
    confidence_loss,
    gap_recovered,
    harden,
    mixed_cross_entropy,
    warm_up,
)
from readtrack.papers.weak_to_strong.benchmark import cost, lesson, loss_inputs, until
from readtrack.papers.weak_to_strong.classroom import Probes, classroom, features, learn, pretrain
from readtrack.papers.weak_to_strong.experiment import teachers_answers
from readtrack.plugin import Arm
from readtrack.runs.table import Sweep
from readtrack.runs.trial import Trial, Work, Workshop

students = import_module("readtrack.papers.weak_to_strong.experiment")


def distributions(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).softmax(-1)


# The gap


@pytest.mark.parametrize(
    ("weak", "student", "ceiling", "percent"), [(56.6, 61.9, 64.5, 67), (56.6, 66.6, 74.0, 57)]
)
def test_the_gap_of_the_authors_vision_models(weak, student, ceiling, percent):
    """AlexNet's labels for probes on DINO: accuracies from vision/README.md in the authors' repository."""
    assert round(100 * gap_recovered(weak, student, ceiling)) == percent
    assert f"{percent} %" in weak_to_strong.BEATS_ITS_TEACHER.paper.text


def test_the_gap_is_0_at_the_teacher_and_1_at_the_ceiling():
    assert gap_recovered(0.7, 0.7, 0.9) == 0.0
    assert gap_recovered(0.7, 0.9, 0.9) == 1.0
    assert gap_recovered(0.75, 0.5, 1.0) == -1.0


# The threshold


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_threshold_is_the_one_that_brute_force_finds(batch, share):
    scores = torch.randn(3, batch)
    for score, found in zip(scores, harden(scores, share), strict=True):
        every = [(score > t).long() for t in [-math.inf, *score.tolist()]]
        assert found.tolist() in [every[0].tolist(), *(one.tolist() for one in every[1:])]
        off = [abs(one.double().mean().item() - share) for one in every]
        assert abs(found.double().mean().item() - share) == min(off)


def test_half_of_a_batch_lies_above_its_median():
    """This matches the quantile in the authors' repository."""
    score = torch.randn(5, 64)
    expected = (score > score.quantile(0.5, dim=-1, keepdim=True)).long()
    assert torch.equal(harden(score, 0.5), expected)
    assert harden(score, 0.5).sum(-1).tolist() == [32] * 5


def test_equal_scores_are_on_one_side():
    assert harden(torch.tensor([1.0, 1.0, 1.0, 2.0]), 0.5).tolist() == [0, 0, 0, 1]
    assert harden(torch.zeros(4), 0.5).tolist() == [0] * 4


def test_the_students_weight_grows_over_the_first_fifth():
    assert [warm_up(progress, 0.5) for progress in (0.0, 0.05, 0.1, 0.2, 0.9)] == pytest.approx(
        [0.0, 0.125, 0.25, 0.5, 0.5]
    )


# The loss


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.75, 1.0])
def test_value_and_gradient_match_the_formula(alpha):
    """Computes both number by number, without autograd: CE(p, q) = -Σ q ln p, and its gradient p - q."""
    logits = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    weak, weight = distributions(6, 2), torch.randn(6, dtype=torch.float64)
    loss = confidence_loss(logits, weak, alpha)
    loss.backward(weight)
    rows, targets = logits.tolist(), weak.tolist()
    p = [[math.exp(z) / sum(map(math.exp, row)) for z in row] for row in rows]
    threshold = sorted(row[1] for row in p)[2]
    for i in range(6):
        hard = 1.0 if p[i][1] > threshold else 0.0
        own = [1 - hard, hard]
        mixture = [(1 - alpha) * targets[i][c] + alpha * own[c] for c in range(2)]
        value = -sum(mixture[c] * math.log(p[i][c]) for c in range(2))
        assert loss[i].item() == pytest.approx(value, rel=1e-12)
        for c in range(2):
            expected = weight[i].item() * (p[i][c] - mixture[c])
            assert logits.grad[i, c].item() == pytest.approx(expected, rel=1e-11, abs=1e-14)


@pytest.mark.parametrize("shape", [(1, 2), (7, 3), (2, 5, 4), (3, 2, 6, 2)])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_pieces_match_torchs_cross_entropies(assert_parity, shape, alpha):
    weak, hard = distributions(*shape), torch.randint(shape[-1], shape[:-1])

    def theirs(logits):
        flat = logits.flatten(0, -2)
        soft = F.cross_entropy(flat, weak.flatten(0, -2), reduction="none")
        own = F.cross_entropy(flat, hard.flatten(), reduction="none")
        return ((1 - alpha) * soft + alpha * own).view(shape[:-1])

    assert_parity(
        lambda logits: mixed_cross_entropy(logits, weak, hard, alpha), theirs, (torch.randn(shape) * 3,)
    )


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_gradient_matches_finite_differences(alpha):
    logits = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    weak, hard = distributions(2, 5, 4), torch.randint(4, (2, 5))
    assert torch.autograd.gradcheck(lambda z: mixed_cross_entropy(z, weak, hard, alpha), (logits,))


def test_hardened_predictions_and_weak_labels_are_constants():
    logits = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    weak = distributions(8, 2).requires_grad_()
    gradients = torch.autograd.grad(
        confidence_loss(logits, weak, 0.5).sum(), (logits, weak), allow_unused=True
    )
    hard = harden(logits.detach()[:, 1] - logits.detach()[:, 0], 0.5)
    expected = logits.softmax(-1) - (weak + F.one_hot(hard, 2)) / 2
    assert_close(gradients[0], expected.detach())
    assert gradients[1] is None


def test_there_are_second_derivatives():
    logits = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    weak, hard = distributions(2, 4, 2), torch.randint(2, (2, 4))
    assert torch.autograd.gradgradcheck(lambda z: mixed_cross_entropy(z, weak, hard, 0.3), (logits,))


def test_certainty_does_not_overflow():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = confidence_loss(logits, torch.tensor([[0.5, 0.5], [0.25, 0.75]]), 0.5)
    loss.sum().backward()
    assert loss.tolist() == [5000.0, 2500.0]
    assert logits.grad.tolist() == [[0.25, -0.25], [-0.125, 0.125]]


# Students


def test_the_papers_probes():
    """The probes have 1000 classes, on the 2048 features of a ResNet-50 and the 768 of a ViT-B."""
    for inputs, count in ((2048, 2_049_000), (768, 769_000)):
        with torch.device("meta"):
            ours, theirs = Probes(1, inputs, 1000), nn.Linear(inputs, 1000)
        for layer in (ours, theirs):
            assert sum(p.numel() for p in layer.parameters()) == count


def test_each_student_learns_as_if_alone_and_as_by_torchs_layers():
    """Students trained in parallel with the confidence loss, compared with one linear layer per student
    and torch's cross-entropy.
    """
    x, weak = torch.randn(3, 70, 5, dtype=torch.float64), distributions(3, 70, 2)
    probes = Probes(3, 5).double()
    for _ in learn(probes, x, weak, torch.Generator().manual_seed(1), epochs=5, rate=0.1, peak=0.5):
        pass
    for index in range(3):
        layer = nn.Linear(5, 2).double()
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
        optimizer, generator = torch.optim.Adam(layer.parameters()), torch.Generator().manual_seed(1)
        for epoch in range(5):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * epoch / 5))
            for half, rows in enumerate(torch.randperm(70, generator=generator).split(64)):
                logits = layer(x[index, rows])
                odd = logits[:, 1] - logits[:, 0]
                own = F.one_hot((odd > odd.sort().values[len(rows) // 2 - 1]).long(), 2)
                alpha = min(0.5, (epoch + half / 2) / 2)
                loss = F.cross_entropy(logits, (1 - alpha) * weak[index, rows] + alpha * own)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        assert_close(probes.weight[index], layer.weight.T, rtol=1e-9, atol=1e-11)
        assert_close(probes.bias[index, 0], layer.bias, rtol=1e-9, atol=1e-11)


def test_no_model_is_tested_on_training_data_of_another(monkeypatch):
    numbered = torch.arange(1797.0)[:, None, None].expand(-1, 8, 8)
    monkeypatch.setattr(data, "digits", lambda: (numbered, torch.arange(1797) % 10))
    known, few = classroom(torch.Generator().manual_seed(1), torch.empty(0), 4)
    seen = {name: set(images[:, 0].long().tolist()) for name, (images, _) in known.items()}
    sizes = {name: len(rows) for name, rows in seen.items()}
    assert sizes == {"pre-training": 500, "teachers": 100, "transfer": 478, "test": 719}
    assert set.union(*seen.values()) == set(range(1797))
    again, _ = classroom(torch.Generator().manual_seed(2), torch.empty(0), 4)
    assert not torch.equal(known["test"][0], again["test"][0])
    assert not torch.equal(known["transfer"][0], again["transfer"][0])
    pixels = few(torch.arange(64.0)[None])
    assert pixels.shape == (4, 1, 20)
    assert all(len(set(row[0].tolist())) == 20 for row in pixels)
    assert len({tuple(row[0].tolist()) for row in pixels}) == 4


def test_pre_training_makes_features_that_tell_digits():
    known, _ = classroom(torch.Generator().manual_seed(0), torch.empty(0), 1)
    generator = torch.Generator().manual_seed(0)
    body = features(32, generator)
    images, labels = known["pre-training"]

    def apart() -> float:
        """Squared distance between the digits' mean features, divided by that within a digit."""
        found = body(images).detach()
        means = torch.stack([found[labels == digit].mean(0) for digit in range(10)])
        return (means.var(0).sum() / (found - means[labels]).square().sum(-1).mean()).item()

    before = apart()
    pretrain(body, known["pre-training"], range(150), generator)
    assert apart() > 1.5 * before
    assert not any(weight.requires_grad for weight in body.parameters())


# Experiment and benchmark


def test_the_experiment_runs(run_experiment):
    record = run_experiment(weak_to_strong)
    students = {"weak labels", "confidence loss", "untrained features", "teacher's kind"}
    students |= {"bootstrapped", "relabelled", "teacher's, hardened", "truth"}
    between = {"teacher", "middle, hands on", "strong, hands on"}
    assert record.curves["accuracy"].keys() == students | between
    assert record.curves["gap recovered"].keys() == students
    assert [step for step, _ in record.curves["accuracy"]["teacher"]] == [1, 2, 3]
    weak, ceiling = (record.curves["accuracy"][arm][-1][1] for arm in ("teacher", "truth"))
    recovered = {arm: gap_recovered(weak, record.curves["accuracy"][arm][-1][1], ceiling) for arm in students}
    at_end = record.values["gap recovered at the end", "weak labels"]
    assert at_end == pytest.approx(recovered["weak labels"], abs=1e-4)
    assert record.values["gap recovered at the end", "truth"] == 1.0
    values = {
        event["claim"]["name"]: [value for metric, value in event["values"].items() if FALL not in metric]
        for event in record.claims
    }
    alone = recovered["weak labels"]
    expected = {
        "student and weak teacher": [alone - recovered["teacher's kind"]],
        "confidence loss and weak labels alone": [
            recovered["confidence loss"] - alone,
            recovered["confidence loss"] - recovered["teacher's, hardened"],
        ],
        "pre-trained and random features": [alone - recovered["untrained features"]],
        "labels through an intermediate student": [
            recovered["bootstrapped"] - alone,
            recovered["bootstrapped"] - recovered["relabelled"],
        ],
    }
    assert values.keys() == expected.keys()
    for claim, numbers in expected.items():
        assert values[claim] == pytest.approx(numbers, abs=1e-4), claim
    assert [artifact["name"] for artifact in record.artifacts] == ["students"]


def test_each_student_sees_and_learns_as_its_name_states(comparisons):
    (given,) = comparisons(weak_to_strong)
    ours = {name: (arm.make.view, arm.make.labels, arm.make.peak) for name, arm in given.arms.items()}
    assert ours == {
        "teacher's kind": (students.teachers_pixels, students.teachers_labels, 0.0),
        "weak labels": (students.strong, students.teachers_labels, 0.0),
        "teacher's, hardened": (students.strong, students.teachers_labels, 0.5),
        "confidence loss": (students.strong, students.teachers_labels, 0.5),
        "untrained features": (students.untrained, students.teachers_labels, 0.0),
        "relabelled": (students.strong, students.handed_on_by_strong, 0.0),
        "bootstrapped": (students.strong, students.handed_on_by_middle, 0.0),
    }
    assert given.yardsticks["truth"].make.labels is students.truth
    rival = given.breaks["all pixels"]["weak labels"].make
    assert (rival.view, rival.labels) == (students.all_pixels, students.teachers_labels)
    assert given.breaks["nearest neighbours"] == {"weak labels": Arm(students.Neighbours(20))}
    for name, arm in (("labelled twice", "confidence loss"), ("nobody in between", "bootstrapped")):
        again = given.breaks[name][arm].make
        assert (again.view, again.labels, again.peak) == (
            students.strong,
            students.handed_on_by_strong,
            0.0,
        )


def test_the_one_in_the_middle_is_smaller_and_one_learns_without_features(run_experiment, monkeypatch):
    made, pretrained = set(), students.pretrained

    def noted(at, name, width, steps):
        made.add((name, width, steps > 0))
        return pretrained(at, name, width, steps)

    monkeypatch.setattr(students, "pretrained", noted)
    run_experiment(weak_to_strong)
    assert made == {("strong", 64, True), ("middle", 16, True), ("untrained", 64, False)}


def test_features_are_pre_trained_on_the_500_images_that_no_one_labels(run_experiment, monkeypatch):
    seen, pretrain = set(), students.pretrain

    def noted(body, part, *rest):
        seen.add(len(part[0]))
        return pretrain(body, part, *rest)

    monkeypatch.setattr(students, "pretrain", noted)
    run_experiment(weak_to_strong)
    assert seen == {500}


def test_the_nearest_neighbours_vote_with_the_teachers_labels():
    transfer, images = torch.zeros(4, 64), torch.zeros(2, 64)
    transfer[:, 0], images[:, 0] = torch.tensor([0.0, 1.0, 10.0, 11.0]), torch.tensor([0.2, 10.2])
    known = {"transfer": (transfer, torch.zeros(4).long()), "test": (images, torch.tensor([4, 7]))}
    odd = torch.tensor([[0.1, 0.3, 0.8, 0.4], [0.6, 0.6, 0.0, 0.0]])
    teacher = students.Taught([], torch.stack((1 - odd, odd), -1), torch.zeros(2, 2).long())
    found = students.vote(students.School(known, lambda images: images, 0, teacher), 2)
    assert found.answers.tolist() == [[0, 1], [1, 0]]
    assert found.curve == [0.5]
    assert_close(found.labels[0, :, 1], torch.tensor([0.2, 0.2, 0.6, 0.6]))


def test_the_set_up_is_the_stated_one():
    assert digest(students) == "e832d0eda35a"


def test_the_last_epoch_is_judged_and_agreement_is_with_the_teacher(part_of_run):
    def taught(*answers):
        return students.Taught([0.3, 0.6], torch.zeros(1, 1, 2), torch.tensor([answers]))

    known = {"test": (torch.zeros(4, 64), torch.tensor([4, 7, 3, 1]))}
    world = students.School(known, lambda images: images, 0, taught(0, 1, 1, 0))
    at = Trial(Workshop(part_of_run(), world), Work(arm="weak labels"), arm="weak labels")
    found = students.judged(at, Sweep(taught(0, 1, 0, 0), None, {}))
    assert found["accuracy"].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert found["agreement with the teacher"] == 0.75


def test_the_gap_of_single_images_averages_to_the_gap_recovered():
    weak, student, ceiling = torch.rand(3, 50, dtype=torch.float64)
    found = weak_to_strong.gap_of_images(weak, student, ceiling)
    whole = gap_recovered(weak.mean().item(), student.mean().item(), ceiling.mean().item())
    assert found.mean().item() == pytest.approx(whole)
    draws = torch.randint(50, (4000, 50), generator=torch.Generator().manual_seed(0))
    low, ours, high = (one[draws].mean(1) for one in (weak, student + 2, ceiling + 4))
    found = weak_to_strong.gap_of_images(weak, student + 2, ceiling + 4)
    error = ((ours - low) / (high - low)).std().item()
    assert (found.std() / math.sqrt(50)).item() == pytest.approx(error, rel=0.1)


def test_the_break_trusts_the_teacher():
    logits, weak = torch.randn(6, 2), distributions(6, 2).float()
    hard = harden(weak[:, 1] - weak[:, 0], 0.5)
    expected = mixed_cross_entropy(logits, weak, hard, 0.5)
    assert torch.equal(teachers_answers(logits, weak, 0.5), expected)


def test_every_variant_is_right(check_benchmark):
    cases = check_benchmark(weak_to_strong)
    assert {case.name for case in cases} == {"confidence loss", "students until"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_benchmarks_labels_are_distributions_in_any_precision(dtype):
    _, weak, hard = loss_inputs(torch.Generator().manual_seed(0), 50, 3)
    assert torch.equal(weak.to(dtype).double().sum(-1), torch.ones(50, dtype=torch.float64))
    assert set(hard.tolist()) == {0, 1, 2}


def test_a_target_out_of_reach_is_not_reached():
    inputs = (*lesson(100), torch.zeros(20, 64, 2))
    assert until(1.0, confidence_loss, 0.5, *inputs) == {"reached": False, "epochs": 40}
    assert until(0.5, confidence_loss, 0.5, *inputs) == {"reached": True, "epochs": 1}


def test_the_stated_bytes_are_the_necessary_reads_and_writes():
    stated = cost(5, 3, itemsize=2)
    logits, label, loss = torch.empty(5, 3, dtype=torch.bfloat16), torch.empty(5).long(), 5 * 2
    assert stated["forward"].bytes == 2 * logits.nbytes + label.nbytes + loss
    assert stated["forward+backward"].bytes == stated["forward"].bytes + logits.nbytes + loss
