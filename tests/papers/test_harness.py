"""The fixtures for papers' tests detect planted mistakes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from readtrack.checks import experiment as checked
from readtrack.plugin import Bound, Case, Claim, Cost, Figure, Variant

CLAIM = Claim(name="falls", sentence="It falls.", paper=Figure("0.1"), rule=(Bound("loss", "<=", 0.5),))


def square(x: Tensor) -> Tensor:
    return x**2


def right_with_a_wrong_gradient(x: Tensor) -> Tensor:
    return 2 * x**2 - (x**2).detach()


def test_parity_holds_for_the_same_function(assert_parity):
    assert_parity(square, lambda x: x * x, (torch.randn(3),))


@pytest.mark.parametrize(
    ("ours", "complaint"),
    [
        (lambda x: x**2 + 1e-6, "result 0"),
        (right_with_a_wrong_gradient, "the gradient of input 0"),
        (lambda x: (x**2, x), "another number of results"),
        (lambda x: (x**2).float(), "result 0"),
    ],
)
def test_parity_detects_differences(assert_parity, ours, complaint):
    with pytest.raises(AssertionError, match=complaint):
        assert_parity(ours, square, (torch.randn(3),))


def test_parity_sees_a_parameter_without_its_gradient(assert_parity):
    with pytest.raises(AssertionError, match="the gradient of bias"):
        assert_parity(
            lambda w, x: x + w["bias"].detach(),
            lambda w, x: x + w["bias"],
            (torch.randn(3),),
            weights={"bias": torch.randn(3)},
        )


def scaled(x: Tensor, weight: Tensor) -> Tensor:
    return (x * weight).exp()


def rounded_on_the_way(x: Tensor, weight: Tensor) -> Tensor:
    return ((x * weight / 8).exp() ** 2) ** 4


def with_a_rough_gradient(x: Tensor, weight: Tensor) -> Tensor:
    y = scaled(x, weight)
    return y + 0.05 * (weight - weight.detach()).sum()


@pytest.mark.parametrize(
    ("ours", "complaint"),
    [
        (rounded_on_the_way, "result 0 in torch"),
        (with_a_rough_gradient, "the gradient of input 1"),
        (lambda x, weight: scaled(x, weight).float(), "other dtypes of results"),
    ],
)
def test_half_precision_is_measured_against_the_references(assert_half_precision, ours, complaint):
    inputs = torch.randn(64, 32), torch.rand(32)
    assert_half_precision(scaled, scaled, inputs)
    assert_half_precision(lambda x, w: scaled(x.float(), w.float()).to(x.dtype), scaled, inputs)
    with pytest.raises(AssertionError, match=complaint):
        assert_half_precision(ours, scaled, inputs)


def test_half_precision_counts_the_gradients_of_parameters(assert_half_precision):
    inputs, weights = (torch.randn(64, 32),), {"weight": torch.rand(32)}
    assert_half_precision(
        lambda w, x: scaled(x, w["weight"]), lambda w, x: scaled(x, w["weight"]), inputs, weights=weights
    )
    with pytest.raises(AssertionError, match="the gradient of weight"):
        assert_half_precision(
            lambda w, x: with_a_rough_gradient(x, w["weight"] * 1),
            lambda w, x: scaled(x, w["weight"]),
            inputs,
            weights=weights,
        )


def experiment(*, curve: bool = True, metric: bool = True, claim: bool = True, loss: float = 0.1):
    def run_it(run) -> None:
        if curve:
            run.metric("loss", loss, step=0)
        if metric:
            run.metric("accuracy", 0.9)
        if claim:
            run.claim(CLAIM, {"loss": loss})

    return SimpleNamespace(__name__="toy", CLAIM=CLAIM, experiment=run_it)


def test_a_whole_experiment_passes(run_experiment):
    assert run_experiment(experiment()).curves == {"loss": {"": [(0, 0.1)]}}


@pytest.mark.parametrize(
    "missing", [{"curve": False}, {"metric": False}, {"claim": False}, {"loss": torch.nan}]
)
def test_an_experiment_that_lacks_something_does_not(run_experiment, missing):
    with pytest.raises(AssertionError):
        run_experiment(experiment(**missing))


def benchmark(*variants: Variant, inputs=lambda g: (torch.randn(3, generator=g),)):
    case = Case(
        name="square",
        axes={"size": 3},
        inputs=inputs,
        variants=variants,
        cost={"forward": Cost(3, 24), "forward+backward": Cost(9, 48)},
    )
    return SimpleNamespace(benchmark=lambda bench: iter([case]))


NAIVE, STRONG = Variant(name="a", role="naive", call=square), Variant(name="b", role="strong", call=square)


def in_place(x: Tensor) -> Tensor:
    return x.mul_(x) if not x.requires_grad else x * x


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x: x**2 + 1e-6, "forward, tensor 0"),
        (right_with_a_wrong_gradient, r"forward\+backward, tensor 1"),
        (in_place, "changes its inputs"),
    ],
)
def test_a_wrong_variant_is_seen(check_benchmark, call, complaint):
    assert check_benchmark(benchmark(NAIVE, STRONG, Variant(name="c", role="paper", call=square)))
    with pytest.raises(AssertionError, match=complaint):
        check_benchmark(benchmark(NAIVE, STRONG, Variant(name="c", role="paper", call=call)))


def test_a_missing_role_and_inputs_of_their_own_will_are_seen(check_benchmark):
    with pytest.raises(AssertionError, match="paper"):
        check_benchmark(benchmark(NAIVE, STRONG))
    paper = Variant(name="c", role="paper", call=square)
    with pytest.raises(AssertionError, match="do not follow the generator"):
        check_benchmark(benchmark(NAIVE, STRONG, paper, inputs=lambda g: (torch.randn(3),)))


def test_no_test_of_a_paper_judges_seconds():
    """`make test` does not collect timing tests, because they take longer than all others."""
    files = set(Path(__file__).parent.glob("*.py")) - {Path(__file__)}
    assert [path.name for path in files if "mark.timing" in path.read_text(encoding="utf-8")] == []


def test_an_equal_run_is_made_once_and_a_changed_plugin_runs_again(remembered, monkeypatch, tmp_path):
    from readtrack.papers import sgd

    made = []
    real = checked.run_experiment

    def counted(*arguments, **options):
        made.append(options)
        return real(*arguments, **options)

    patch = pytest.MonkeyPatch()
    patch.setattr(checked, "run_experiment", counted)
    try:
        first, _ = remembered(sgd, tmp_path / "a", seed=77)
        numbers = torch.rand(3)
        again, _ = remembered(sgd, tmp_path / "b", seed=77)
        assert len(made) == 1
        assert again == first
        assert again is not first
        assert torch.equal(torch.rand(3), numbers), "what is drawn after a run follows from it"
        assert (tmp_path / "b" / "events.jsonl").is_file()
        remembered(sgd, tmp_path / "c", seed=77, null=True)
        assert len(made) == 2
        monkeypatch.setattr(sgd, "__doc__", "changed")
        remembered(sgd, tmp_path / "d", seed=77)
        assert len(made) == 3
    finally:
        patch.undo()
