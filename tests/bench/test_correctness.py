"""Each check has a variant that cheats, and an honest variant that passes."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from readtrack.bench.case import Case, Cost, Mode, Variant
from readtrack.bench.correctness import Check, CorrectnessCheck, gradients_on
from readtrack.bench.measure import run_cases
from readtrack.bench.nests import mapped
from readtrack.bench.timed import TimedCalls

CPU = torch.device("cpu")
SEED = 7


def softmax(x: Tensor, w: Tensor) -> Tensor:
    """An honest variant: softmax of (rows, 64) times w (64, 32), written out."""
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True) @ w


def inputs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(48, 64, generator=generator), torch.randn(64, 32, generator=generator)


def case_of(call: Callable[..., Any], mode: Mode = "forward", **fields: Any) -> Case:
    return Case(
        **{
            "name": "softmax",
            "axes": {"rows": 48},
            "inputs": inputs,
            "variants": [
                Variant(name="naive", role="naive", call=softmax),
                Variant(name="ours", role="paper", call=call),
            ],
            "cost": {mode: Cost(2 * 48 * 64 * 32, 4 * (48 * 64 + 64 * 32 + 48 * 32))},
            **fields,
        }
    )


def passes(call: Callable[..., Any], mode: Mode = "forward", **fields: Any) -> Check:
    """The checks before and after timing."""
    case = case_of(call, mode, **fields)
    checker = CorrectnessCheck(case, mode, device=CPU, dtype=torch.float32, seed=SEED)
    check = checker.before(case.variants[1])
    return checker.after(case.variants[1], check) if check.passed else check


def honest(x: Tensor, w: Tensor) -> Tensor:
    return torch.softmax(x, -1) @ w


@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
def test_an_honest_variant_passes(mode: Mode) -> None:
    check = passes(honest, mode)
    assert check.passed, check.reason
    assert 0 < check.errors[1] < 1e-5
    assert check.oracle == "float64"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_an_honest_variant_passes_in_every_precision(dtype: torch.dtype) -> None:
    case = case_of(honest, "forward+backward")
    checker = CorrectnessCheck(case, "forward+backward", device=CPU, dtype=dtype, seed=SEED)
    for variant in case.variants:
        check = checker.before(variant)
        assert check.passed, check.reason


@pytest.mark.parametrize("mode", ["forward", "forward+backward"])
def test_a_wrong_result_is_caught(mode: Mode) -> None:
    check = passes(lambda x, w: torch.softmax(x * 1.0005, -1) @ w, mode)
    assert not check.passed
    assert "off by" in check.reason
    assert check.errors[1] > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_excuse_errors(dtype: torch.dtype) -> None:
    case = case_of(lambda x, w: torch.softmax(x, -1) @ w * 1.1)
    checker = CorrectnessCheck(case, "forward", device=CPU, dtype=dtype, seed=SEED)
    assert "off by" in checker.before(case.variants[1]).reason


def recurrence(x: Tensor) -> Tensor:
    """A state that is rounded at each of 150 steps."""
    state = torch.zeros_like(x[0])
    for row in x:
        state = 0.999 * state + row
    return state


def in_float32(x: Tensor) -> Tensor:
    return recurrence(x.float()).to(x.dtype)


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.3, False)])
def test_in_half_precision_the_naive_variants_rounding_is_allowed(factor: float, passed: bool) -> None:
    case = case_of(
        lambda x: in_float32(x) * factor,
        inputs=lambda generator: (torch.rand(150, 32, generator=generator),),
        variants=[
            Variant(name="naive", role="naive", call=recurrence),
            Variant(name="ours", role="paper", call=lambda x: in_float32(x) * factor),
        ],
    )
    checker = CorrectnessCheck(case, "forward", device=CPU, dtype=torch.bfloat16, seed=SEED)
    naive, ours = (checker.before(variant) for variant in case.variants)
    assert naive.errors[1] > 4 * torch.finfo(torch.bfloat16).eps
    assert naive.passed
    assert ours.passed is passed


def test_a_wrong_naive_variant_gives_no_tolerance() -> None:
    def half(x: Tensor, w: Tensor) -> Tensor:
        return honest(x, w) * 0.9

    variants = [Variant(name=role, role=role, call=half) for role in ("naive", "paper")]
    case = case_of(half, variants=variants, oracle=honest)
    checker = CorrectnessCheck(case, "forward", device=CPU, dtype=torch.bfloat16, seed=SEED)
    assert not any(checker.before(variant).passed for variant in variants)


def test_a_normalisation_has_a_gradient_to_check() -> None:
    """The gradient along the layer's own input is zero, so comparing it would only compare rounding
    errors.
    """

    def normalised(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0)

    def wrong(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / x.std(0).detach()

    fields = {
        "inputs": lambda generator: (torch.randn(64, 8, generator=generator),),
        "oracle": normalised,
    }
    assert passes(normalised, "forward+backward", **fields).passed
    assert "output 1 is off" in passes(wrong, "forward+backward", **fields).reason


def test_a_wrong_gradient_is_caught() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
            ctx.save_for_backward(x, w)
            return honest(x, w)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            x, w = ctx.saved_tensors
            p = torch.softmax(x, -1)
            return p * (grad @ w.mT), p.mT @ grad  # omits the sum in softmax's gradient

    assert passes(Wrong.apply, "forward").passed
    check = passes(Wrong.apply, "forward+backward")
    assert not check.passed
    assert check.reason.startswith("output 1 is off by")


def test_a_gradient_that_is_zero_is_measured_by_the_others() -> None:
    """A constant added to all logits changes nothing, so its gradient is only rounding error."""

    def shifted(soft: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, w, shift: soft(x + shift, w)

    def wrong(x: Tensor, w: Tensor, shift: Tensor) -> Tensor:
        return honest(x + shift, w) + 1e-3 * (shift - shift.detach()).sum()

    fields = {
        "inputs": lambda generator: (*inputs(generator), torch.randn(48, 1, generator=generator)),
        "oracle": shifted(softmax),
    }
    check = passes(shifted(honest), "forward+backward", **fields)
    assert check.passed, check.reason
    assert "output 3 is off by" in passes(wrong, "forward+backward", **fields).reason


def test_a_case_names_the_inputs_that_have_gradients() -> None:
    def half(x: Tensor, w: Tensor) -> Tensor:
        return honest(x, w.detach())

    assert "output 2 is off by" in passes(half, "forward+backward").reason
    assert passes(half, "forward+backward", gradients=(0,)).passed


def nested(generator: torch.Generator) -> tuple[dict[str, Any], list[Tensor]]:
    x, w = inputs(generator)
    return {"w": w, "shift": (torch.randn(64, generator=generator), 2)}, [x]


def on_nests(weights: dict[str, Any], rows: list[Tensor], *, soft: Callable[..., Tensor] = honest) -> Any:
    shift, times = weights["shift"]
    return {"out": times * soft(rows[0] + shift, weights["w"]), "shift": [shift * 2]}


def test_inputs_and_results_may_be_nests() -> None:
    def wrong_inside(weights: dict[str, Any], rows: list[Tensor]) -> Any:
        found = on_nests(weights, rows)
        return {
            **found,
            "shift": [found["shift"][0].detach() + weights["shift"][0] - weights["shift"][0] / 9],
        }

    fields = {"inputs": nested, "oracle": lambda *given: on_nests(*given, soft=softmax)}
    for mode in ("forward", "forward+backward"):
        check = passes(on_nests, mode, **fields)
        assert check.passed, check.reason
        assert "output 1 is off by" in passes(wrong_inside, mode, **fields).reason


def test_the_gradients_of_a_nest_cover_everything_in_it() -> None:
    def without_one(weights: dict[str, Any], rows: list[Tensor]) -> Any:
        shift, times = weights["shift"]
        return on_nests({"w": weights["w"], "shift": (shift.detach(), times)}, rows)

    fields = {"inputs": nested, "oracle": on_nests}
    assert "off by" in passes(without_one, "forward+backward", **fields).reason
    assert passes(without_one, "forward+backward", gradients=(1,), **fields).passed


def test_a_nest_that_is_changed_is_seen() -> None:
    def adds(weights: dict[str, Any], rows: list[Tensor]) -> Any:
        found = on_nests(weights, rows)
        weights["shift"][0].add_(1)
        return found

    assert "changes its input" in passes(adds, inputs=nested, oracle=on_nests).reason


def test_a_value_other_than_a_tensor_or_constant_is_not_an_input() -> None:
    with pytest.raises(TypeError, match="not Cache"):
        mapped(Tensor.clone, [type("Cache", (), {})()])


def test_a_variant_gets_its_own_layout_outside_of_the_clock() -> None:
    """Gradients are still those of the case's inputs, and a wrong preparation is detected."""
    prepared: list[Tensor] = []

    def check(mode: Mode, prepare: Callable[..., Any]) -> Check:
        def packed(joined: Tensor) -> Tensor:
            prepared.append(joined)
            return honest(joined[:, :64], joined[:32, 64:].mT)

        variants = [
            Variant(name="naive", role="naive", call=softmax),
            Variant(name="packed", role="paper", call=packed, prepare=prepare),
        ]
        case = case_of(honest, mode, variants=variants)
        checker = CorrectnessCheck(case, mode, device=CPU, dtype=torch.float32, seed=SEED)
        found = checker.before(variants[1])
        if found.passed:
            prepared.clear()
            calls = TimedCalls(checker, variants[1], None)(3)
            with gradients_on(mode):
                for call in calls:
                    call()
            assert prepared[0] is prepared[2]
        return found

    def joined(x: Tensor, w: Tensor) -> tuple[Tensor]:
        return (torch.cat([x, torch.cat([w.mT, w.new_zeros(16, 64)])], 1),)

    for mode in ("forward", "forward+backward"):
        assert check(mode, joined).passed
        assert "off by" in check(mode, lambda x, w: joined(x, w * 1.01)).reason
    assert "off by" in check("forward+backward", lambda x, w: joined(x, w.detach())).reason


# Fresh inputs


def test_fresh_inputs_have_been_seen_by_no_call() -> None:
    remembered: dict[float, Tensor] = {}
    hits = []

    def remembers(x: Tensor, w: Tensor) -> Tensor:
        key = x.sum().item()
        hits.append(key in remembered)
        return remembered.setdefault(key, honest(x, w))

    case = case_of(remembers, fresh=True)
    checker = CorrectnessCheck(case, "forward", device=CPU, dtype=torch.float32, seed=SEED)
    check = checker.before(case.variants[1])
    assert check.passed, check.reason
    hits.clear()
    for variant in case.variants:
        for call in [*TimedCalls(checker, variant, None)(5), *TimedCalls(checker, variant, None)(5)]:
            call()
    assert hits == [False] * 10
    assert checker.after(case.variants[1], check).passed


def test_a_nan_is_a_failure() -> None:
    def one_nan(x: Tensor, w: Tensor) -> Tensor:
        out = honest(x, w)
        out[3, 4] = float("nan")
        return out

    assert "NaN" in passes(one_nan).reason


def test_nan_of_the_oracle_does_not_excuse_a_variant() -> None:
    check = passes(honest, oracle=lambda x, w: softmax(x, w) / 0 * 0)
    assert not check.passed
    assert "oracle" in check.reason


def test_a_result_kept_by_identity_is_caught() -> None:
    kept: dict[int, Tensor] = {}

    def cached(x: Tensor, w: Tensor) -> Tensor:
        if id(x) not in kept:
            kept[id(x)] = honest(x, w)
        return kept[id(x)]

    assert not passes(cached).passed


def test_a_result_kept_by_address_and_version_is_caught() -> None:
    kept: dict[tuple[int, int], Tensor] = {}

    def cached(x: Tensor, w: Tensor) -> Tensor:
        key = (x.data_ptr(), x._version)
        if key not in kept:
            kept[key] = honest(x, w)
        return kept[key]

    assert not passes(cached).passed


def test_a_result_kept_by_contents_is_caught() -> None:
    """The variant is correct for every input, but its time on known inputs is meaningless."""
    kept: dict[float, Tensor] = {}

    def slow(x: Tensor, w: Tensor) -> Tensor:
        for _ in range(400):
            out = honest(x, w)
        return out

    def cached(x: Tensor, w: Tensor) -> Tensor:
        key = x.flatten()[:8].tolist()[0]
        if key not in kept:
            kept[key] = slow(x, w)
        return kept[key].clone()

    assert passes(slow).passed
    assert "remembers" in passes(cached).reason


def test_a_changed_input_is_caught() -> None:
    def in_place(x: Tensor, w: Tensor) -> Tensor:
        return torch.softmax(x.sub_(x.amax(-1, keepdim=True)), -1) @ w

    assert "changes its input 0" in passes(in_place).reason


class Lazy(Tensor):
    """Computes its result only when it is accessed."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        real = [arg.work() if isinstance(arg, Lazy) else arg for arg in args]
        return func(*real, **(kwargs or {}))


def test_a_lazy_tensor_is_caught() -> None:
    def lazy(x: Tensor, w: Tensor) -> Tensor:
        out = torch.empty(48, 32).as_subclass(Lazy)
        out.work = lambda: honest(x, w)
        return out

    assert "Lazy" in passes(lazy).reason


def test_work_that_continues_after_the_return_is_detected() -> None:
    def deferred(x: Tensor, w: Tensor) -> Tensor:
        out = torch.empty(48, 32)

        def work() -> None:
            time.sleep(0.05)
            out.copy_(honest(x, w))

        threading.Thread(target=work, daemon=True).start()
        return out

    assert not passes(deferred).passed


def test_an_empty_kernel_does_not_pass_by_reused_memory() -> None:
    """The allocator reuses freed memory, which must not contain the correct answer."""
    check = passes(lambda x, w: torch.empty(48, 32))
    assert not check.passed


def test_an_output_that_is_a_view_of_its_input_is_caught() -> None:
    def first_rows(generator: torch.Generator) -> tuple[Tensor]:
        return (torch.randn(8, 4, generator=generator),)

    oracle = {"inputs": first_rows, "oracle": lambda x: x[:4] * 1}
    assert "overwritten" in passes(lambda x: x[:4], **oracle).reason
    assert passes(lambda x: x[:4].clone(), **oracle).passed
    # If the oracle returns a view, the variant may, too.
    assert passes(lambda x: x[:4], inputs=first_rows, oracle=lambda x: x[:4]).passed


def test_a_result_right_for_one_seed_only_is_caught() -> None:
    known = honest(*inputs(torch.Generator().manual_seed(SEED)))
    assert not passes(lambda x, w: known.clone()).passed


def test_a_variant_that_knows_the_seeds_of_the_first_gate_is_caught_after_the_clock() -> None:
    answers = [
        (inputs(generator)[0][0, 0].item(), honest(*inputs(generator.manual_seed(seed))))
        for seed in (SEED, SEED + 1)
        for generator in [torch.Generator().manual_seed(seed)]
    ]

    def knows(x: Tensor, w: Tensor) -> Tensor:
        return next((answer for first, answer in answers if first == x[0, 0].item()), answers[0][1]).clone()

    case = case_of(knows)
    checker = CorrectnessCheck(case, "forward", device=CPU, dtype=torch.float32, seed=SEED)
    check = checker.before(case.variants[1])
    assert check.passed
    assert not checker.after(case.variants[1], check).passed


def test_a_variant_that_starts_to_cheat_while_it_is_timed_has_no_time() -> None:
    calls = 0

    def tires(x: Tensor, w: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return honest(x, w) if calls < 10 else torch.zeros(48, 32)

    [row] = [row for row in measured(case_of(tires)) if row["role"] == "paper"]
    assert row["t_ns"] is None
    assert "off by" in row["ok"]["reason"]
    assert calls > 10


def test_a_variant_that_takes_more_threads_is_caught() -> None:
    before = torch.get_num_threads()

    def greedy(x: Tensor, w: Tensor) -> Tensor:
        torch.set_num_threads(before + 1)
        return honest(x, w)

    assert "threads" in passes(greedy).reason
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda x, w: (honest(x, w), x), "returns 2 tensors, but expected 1"),
        (lambda x, w: honest(x, w)[:, :3], "output 0 has shape (48, 3), not the oracle's (48, 32)"),
        (lambda x, w: honest(x, w).tolist(), "float"),
        (lambda x, w: None, "NoneType"),
        (lambda x, w: x @ x, "RuntimeError"),
    ],
)
def test_anything_else_is_a_reason(call: Callable[..., Any], reason: str) -> None:
    check = passes(call)
    assert not check.passed
    assert reason in check.reason


def test_a_variant_out_of_memory_is_marked() -> None:
    def greedy(x: Tensor, w: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    assert passes(greedy).reason == "out of memory"


def test_a_broken_oracle_is_named() -> None:
    assert "no oracle: RuntimeError" in passes(honest, oracle=lambda x, w: x @ x).reason


def test_a_case_needs_something_to_be_right_against() -> None:
    case = case_of(honest, variants=[Variant(name="ours", role="paper", call=honest)])
    with pytest.raises(ValueError, match="neither an oracle nor a naive variant"):
        CorrectnessCheck(case, "forward", device=CPU, dtype=torch.float32, seed=0)


def test_integers_must_be_equal() -> None:
    tokens = {"inputs": lambda generator: (torch.randint(9, (50,), generator=generator),)}
    assert passes(lambda t: t.sort().values, oracle=lambda t: t.sort().values, **tokens).passed
    check = passes(lambda t: t.sort().values, oracle=lambda t: t.sort(descending=True).values, **tokens)
    assert "differs" in check.reason


def test_a_case_may_state_its_own_tolerance() -> None:
    def rough(x: Tensor, w: Tensor) -> Tensor:
        return honest(x, w) * 1.001

    assert not passes(rough).passed
    assert passes(rough, tolerance=0.01).passed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_judged_together_may_err_as_much_as_the_naive_variant(dtype: torch.dtype) -> None:
    """Each output is exact in full precision. In half precision, outputs are off by the given errors."""

    def off(*errors: float, full: float = 0.0) -> Callable[..., tuple[Tensor, ...]]:
        def call(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
            half = torch.finfo(x.dtype).eps > 1e-6
            return tuple(torch.ones(50).to(x) * (1 + (error if half else full)) for error in errors)

        return call

    def reason(call: Callable[..., Any], dtype: torch.dtype, **fields: Any) -> str:
        naive = Variant(name="naive", role="naive", call=off(0.3, 0.0, 0.3))
        case = case_of(call, variants=[naive, Variant(name="ours", role="paper", call=call)], **fields)
        return (
            CorrectnessCheck(case, "forward", device=CPU, dtype=dtype, seed=SEED)
            .before(case.variants[1])
            .reason
        )

    assert "output 1 is off" in reason(off(0.0, 0.3, 0.3), dtype)
    assert reason(off(0.0, 0.3, 0.3), dtype, together=True) == ""
    assert "together are off by 0.9 (at most 0.4" in reason(off(0.9, 0.9, 0.9), dtype, together=True)
    assert "output 0 is off" in reason(off(0.0, 0.3, 0.3, full=0.01), torch.float32, together=True)


# Outcomes in a measurement


def measured(case: Case) -> list[dict[str, Any]]:
    events: list[tuple[str, dict[str, Any]]] = []
    run_cases(
        [case],
        device=CPU,
        dtype=torch.float32,
        budget="smoke",
        seed=SEED,
        emit=lambda event, **fields: events.append((event, fields)),
        check_cancelled=lambda: None,
    )
    return [fields for event, fields in events if event == "measurement"]


def test_no_speed_is_shown_for_a_failed_gate() -> None:
    naive, ours = measured(case_of(lambda x, w: honest(x, w) + 0.1))
    assert naive["t_ns"]["value"] > 0
    assert naive["ok"]["passed"]
    assert ours["ok"]["passed"] is False
    assert ours["ok"]["reason"]
    assert ours["record"] is False
    for field in ("t_ns", "tflops", "gbps", "pct_ceiling", "vs_naive", "vs_strong"):
        assert ours[field] is None
    assert ours["samples"] == []


def test_an_unmet_need_is_a_skipped_cell() -> None:
    variants = [
        Variant(name="naive", role="naive", call=softmax),
        Variant(name="kernel", role="paper", call=honest, needs="needs triton"),
    ]
    _, skipped = measured(case_of(honest, variants=variants))
    assert skipped["skipped"] == "needs triton"
    assert skipped["t_ns"] is None
    assert skipped["ok"] is None
