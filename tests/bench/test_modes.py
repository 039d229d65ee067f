"""Correctness checks in the other modes: decode, until and step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from readtrack.bench.case import Case, Cost, Mode, Variant
from readtrack.bench.correctness import Check, CorrectnessCheck
from readtrack.bench.timed import TimedCalls

CPU = torch.device("cpu")
SEED = 7


def case_of(mode: Mode, inputs: Callable[..., Any], *variants: Variant, **fields: Any) -> Case:
    cost = {"cost": {mode: Cost(1, 1)}, **fields}
    return Case(name=mode, axes={}, inputs=inputs, variants=variants, **cost)


def check_of(case: Case, mode: Mode) -> Check:
    """The checks of the last variant, before and after timing."""
    checker = CorrectnessCheck(case, mode, device=CPU, dtype=torch.float32, seed=SEED)
    check = checker.before(case.variants[-1])
    return checker.after(case.variants[-1], check) if check.passed else check


# Decode


def decode_inputs(generator: torch.Generator) -> tuple[dict[str, Any], Tensor]:
    return {"seen": torch.randn(6, 8, generator=generator)}, torch.randn(8, generator=generator)


def append_and_attend(state: dict[str, Any], x: Tensor) -> tuple[Tensor, dict[str, Any]]:
    seen = torch.cat([state["seen"], x[None]])
    return torch.softmax(seen @ x, 0) @ seen, {"seen": seen}


def with_room(state: dict[str, Any], x: Tensor) -> tuple[dict[str, Any], Tensor]:
    seen = state["seen"]
    return {"room": torch.cat([seen, seen.new_zeros(4, 8)]), "length": torch.tensor(len(seen))}, x


def write_and_attend(state: dict[str, Any], x: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Changes its state in place, so a second call would see one more entry."""
    length = int(state["length"].add_(1))
    state["room"][length - 1] = x
    seen = state["room"][:length]
    return torch.softmax(seen @ x, 0) @ seen, state


def decoder(call: Callable[..., Any], **fields: Any) -> Case:
    ours = Variant(name="ours", role="paper", call=call, **fields)
    naive = Variant(name="naive", role="naive", call=append_and_attend)
    return case_of("decode", decode_inputs, naive, ours)


def test_a_state_is_carried_on_and_may_be_changed() -> None:
    case = decoder(write_and_attend, prepare=with_room)
    checker = CorrectnessCheck(case, "decode", device=CPU, dtype=torch.float32, seed=SEED)
    for variant in case.variants:
        check = checker.before(variant)
        assert check.passed, check.reason
        check = checker.after(variant, check)
        assert check.passed, check.reason
    calls = TimedCalls(checker, case.variants[1], None)
    # Much more memory than available if the state kept growing.
    outputs = [call()[0] for call in calls(20)]
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[19])


def test_a_state_that_is_not_carried_on_is_seen() -> None:
    def forgets(state: dict[str, Any], x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        out, _ = append_and_attend(state, x)
        return out, state

    case = decoder(forgets)
    checker = CorrectnessCheck(case, "decode", device=CPU, dtype=torch.float32, seed=SEED)
    # The first output is correct, the second is not.
    assert "output 1 is off by" in checker.before(case.variants[1]).reason


def test_a_decoder_changes_only_its_state() -> None:
    def greedy(state: dict[str, Any], x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        found = append_and_attend(state, x)
        x.add_(1)
        return found

    case = decoder(greedy)
    checker = CorrectnessCheck(case, "decode", device=CPU, dtype=torch.float32, seed=SEED)
    assert not checker.before(case.variants[1]).passed


# Until


def goal_inputs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(48, 64, generator=generator), torch.randn(64, 32, generator=generator)


def descend(x: Tensor, w: Tensor, *, below: float = 1e-3, rate: float = 0.1, most: int = 100) -> Any:
    p = x.clone().requires_grad_()
    for step in range(most):
        loss = p.square().mean()
        if loss < below:
            return {"reached": True, "steps": step, "evaluations": 2 * step}
        (gradient,) = torch.autograd.grad(loss, p)
        p = (p - rate * p.numel() * gradient).detach().requires_grad_()
    return {"reached": False, "steps": most}


def until(call: Callable[..., Any]) -> Check:
    ours = Variant(name="ours", role="paper", call=call)
    return check_of(case_of("until", goal_inputs, ours, cost={"until": None}), "until")


def test_a_variant_that_reaches_its_goal_passes_and_reports_its_cost() -> None:
    check = until(descend)
    assert check.passed, check.reason
    assert check.reported["evaluations"] == 2 * check.reported["steps"] > 2


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda x, w: descend(x, w, most=3), "did not reach the required value (steps 3)"),
        (lambda x, w: torch.tensor(True), "must return a dictionary"),
        (lambda x, w: {"steps": 3}, "must return a dictionary"),
        (lambda x, w: descend(x.zero_(), w), "changes its input 0"),
    ],
)
def test_a_variant_that_misses_its_goal_has_no_time(call: Callable[..., Any], reason: str) -> None:
    check = until(call)
    assert not check.passed
    assert reason in check.reason


def test_a_quality_has_no_cost() -> None:
    with pytest.raises(ValueError, match="it has no cost"):
        case_of("until", goal_inputs, Variant(name="ours", role="paper", call=descend))


# Step


def sgd(p: Tensor, g: Tensor) -> Tensor:
    return p.sub_(g, alpha=0.1)


def step_inputs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(100, generator=generator), torch.randn(100, generator=generator)


def step(call: Callable[..., Any]) -> Check:
    naive = Variant(name="naive", role="naive", call=sgd)
    ours = Variant(name="ours", role="paper", call=call)
    return check_of(case_of("step", step_inputs, naive, ours), "step")


def test_a_step_in_place_passes() -> None:
    check = step(lambda p, g: p.add_(g, alpha=-0.1))
    assert check.passed, check.reason


def test_a_step_must_change_the_same_arguments_as_the_oracle() -> None:
    assert "off by" in step(lambda p, g: p.add_(g, alpha=0.1)).reason
    assert "in place" in step(lambda p, g: p - 0.1 * g).reason


def test_a_step_must_not_change_arguments_that_it_does_not_return() -> None:
    def spoils_the_gradient(p: Tensor, g: Tensor) -> Tensor:
        p.sub_(g, alpha=0.1)
        g.zero_()
        return p

    assert "changes its input 1" in step(spoils_the_gradient).reason
