"""Whole models: every variant gets the same weights before timing starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from readtrack.bench.case import Case, Variant
from readtrack.bench.correctness import Check, CorrectnessCheck, gradients_on
from readtrack.bench.module import ModuleCall, random_weights
from readtrack.bench.timed import TimedCalls

CPU = torch.device("cpu")


class Tied(nn.Module):
    """A model with tied embedding and readout, a buffer and running averages."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 6, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.read_out = nn.Linear(6, 6, bias=False)
        self.read_out.weight = self.embed.weight
        self.register_buffer("phases", torch.arange(6.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.norm(self.embed(x)) + self.phases)


def written_out(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    hidden = x @ weights["embed.weight"].mT
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    hidden = weights["norm.weight"] * hidden + weights["norm.bias"]
    return (hidden + torch.arange(6.0, dtype=x.dtype)) @ weights["embed.weight"].mT


def case_of(*variants: Variant, **fields: Any) -> Case:
    return Case.of_module(
        Tied,
        **{
            "name": "tied",
            "axes": {"rows": 9},
            "inputs": lambda generator: (torch.randn(9, 6, generator=generator),),
            "variants": (Variant(name="written out", role="naive", call=written_out), *variants),
            "cost": {"forward": None, "forward+backward": None},
            **fields,
        },
    )


def checked(case: Case, mode: Any = "forward+backward") -> Check:
    checker = CorrectnessCheck(case, mode, device=CPU, dtype=torch.float32, seed=3)
    check = checker.before(case.variants[1])
    return checker.after(case.variants[1], check) if check.passed else check


@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
def test_a_module_gets_the_weights_by_name(mode: str) -> None:
    case = case_of(Variant.of_module(Tied, name="module", role="paper"))
    check = checked(case, mode)
    assert check.passed, check.reason
    assert check.errors[1] > 0


def test_a_module_that_is_wrong_in_one_weight_is_seen() -> None:
    class WithoutGain(Tied):
        def forward(self, x: Tensor) -> Tensor:
            hidden = F.batch_norm(self.embed(x), None, None, None, self.norm.bias, training=True)
            return self.read_out(hidden + self.phases)

    assert "off by" in checked(case_of(Variant.of_module(WithoutGain, name="module", role="paper"))).reason


def test_a_call_may_do_more_than_call_the_module() -> None:
    def loss(module: nn.Module, x: Tensor) -> Tensor:
        return module(x).square().mean()

    case = case_of(
        Variant.of_module(Tied, loss, name="module", role="paper"),
        oracle=lambda weights, x: written_out(weights, x).square().mean(),
    )
    assert checked(case).passed


def test_other_names_are_prepared() -> None:
    class Renamed(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.first = self.embed
            del self.embed

        def forward(self, x: Tensor) -> Tensor:
            return self.read_out(self.norm(self.first(x)) + self.phases)

    def renamed(weights: dict[str, Tensor], x: Tensor) -> tuple[Any, ...]:
        return {
            "read_out.weight" if name == "embed.weight" else name: weight for name, weight in weights.items()
        }, x

    case = case_of(Variant.of_module(Renamed, name="renamed", role="paper", prepare=renamed))
    check = checked(case)
    assert check.passed, check.reason


def test_the_timed_module_holds_its_weights_and_gives_equal_results() -> None:
    variant = Variant.of_module(Tied, name="module", role="paper")
    case = case_of(variant)
    checker = CorrectnessCheck(case, "forward+backward", device=CPU, dtype=torch.float32, seed=3)
    assert checker.before(variant).passed
    sets = checker.timed_inputs(1)
    with gradients_on("forward+backward"):
        [ours] = TimedCalls(checker, variant, sets)(1)
        out, *gradients = ours()
        [theirs] = TimedCalls(checker, case.variants[0], sets)(1)
        expected, *by_name = theirs()
    torch.testing.assert_close(out, expected)
    assert len(gradients) == len(by_name) == 3
    for mine, other in zip(gradients, by_name, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_ties_and_buffers_survive_on_the_device_and_in_the_dtype_of_the_weights() -> None:
    weights = {name: w.double() for name, w in random_weights(Tied)(torch.Generator()).items()}
    module = ModuleCall(Tied).module(weights)
    assert module.read_out.weight is module.embed.weight
    assert torch.equal(module.embed.weight, weights["embed.weight"])
    assert torch.equal(module.phases, torch.arange(6.0, dtype=torch.float64))
    assert module.norm.running_var.dtype == torch.float64
    assert module.norm.num_batches_tracked.dtype == torch.int64
    module(torch.randn(9, 6, dtype=torch.float64))
    assert module.norm.running_mean.abs().sum() > 0
    assert ModuleCall(Tied).module(weights).norm.running_mean.abs().sum() == 0


def test_no_weight_is_left_at_zero_or_one() -> None:
    weights = random_weights(Tied)(torch.Generator().manual_seed(1))
    assert weights.keys() == {"embed.weight", "norm.weight", "norm.bias"}
    assert not any(((w == 0) | (w == 1)).any() for w in weights.values())
    again = random_weights(Tied)(torch.Generator().manual_seed(1))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    ones = random_weights(Tied, lambda name, shape, generator: torch.ones(shape))(torch.Generator())
    assert torch.equal(ones["norm.bias"], torch.ones(6))
