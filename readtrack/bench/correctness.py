"""Check correctness before speed. A variant that is wrong or cheats is shown without a time.

Each rule has exposed a published result as wrong. Some empty kernels passed because the allocator reused
memory. Other results were cached by their inputs' `id()`, computed on another stream, returned as lazy
tensors, or correct for one seed only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from readtrack import devices
from readtrack.bench.case import Case, Mode, Variant
from readtrack.bench.nests import leaves, mapped, tensors
from readtrack.text import one_line

Inputs = tuple[Any, ...]  # a nest of tensors for each positional argument
Tensors = tuple[Tensor, ...]
Errors = tuple[float, float]

# Above this many flops the oracle computes in float32, because float64 would take longer than the
# measurement. Metal has no float64 at all.
_FLOAT64_FLOPS = {"cpu": 5e9, "cuda": 1e12}
_SINGLE_EPS = torch.finfo(torch.float32).eps
_COTANGENTS = 0x5DEECE66D  # differs from every seed used for inputs
_LAST = 1_000_003  # offset from the seed, for the check after timing
_FRESH = 2_000_003  # offset from the seed, for inputs used once
_HALF_SLACK = 2.0  # multiples of the naive variant's own rounding error allowed in half precision,
_HALF_MOST = 0.25  # up to this fraction of the largest magnitude
_NOTHING = 100  # rounding error allowed, as a multiple of the oracle's eps times the largest magnitude
_UNKNOWN_REDUCTION = 4096.0  # multiply-adds per element if no cost is stated
_MEMOISED = 3.0  # maximum ratio of the time on new contents to the time on known ones
_MEMORY_TRIES = 4  # another process may run in between


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a variant's check.

    errors        the largest absolute error, and the largest error relative to the largest magnitude of
                  the oracle's output; None if nothing could be compared
    oracle        the dtype that the oracle computed in
    first_call_s  wall time of the first call; `call_s`: of the second call
    raised        whether the variant raised an error instead of returning a wrong result
    reported      effort that an "until" reports, as the mean of two calls
    """

    passed: bool
    errors: Errors | None = None
    reason: str = ""
    oracle: str = "float64"
    first_call_s: float = 0.0
    call_s: float = 0.0
    raised: bool = False
    reported: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "passed": self.passed,
            "max_abs": self.errors and self.errors[0],
            "max_rel": self.errors and self.errors[1],
            "oracle": self.oracle,
        }
        return {**fields, "reason": self.reason} if self.reason else fields


class IncorrectError(Exception):
    """A failed check with the reason, and with `errors` if known."""

    def __init__(self, reason: str, errors: Errors | None = None) -> None:
        super().__init__(reason)
        self.errors = errors


def failed(error: Exception) -> Check:
    """The check of a variant that has raised `error`."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return Check(False, reason="out of memory", raised=True)
    return Check(False, reason=one_line(f"{type(error).__name__}: {error}")[:300], raised=True)


def worst(one: Errors | None, other: Errors | None) -> Errors | None:
    if one is None or other is None:
        return one or other
    return max(one[0], other[0]), max(one[1], other[1])


@dataclass(frozen=True, slots=True)
class Reference:
    """The oracle's values for one seed.

    outputs     the call's outputs, then for "forward+backward" the inputs' gradients
    cotangents  vectors for the vector-Jacobian products, one per differentiable output
    aliased     indices of outputs that share memory with the oracle's inputs
    rounding    relative errors of the naive variant in half precision, for each output and then for all
    """

    outputs: Tensors
    cotangents: Tensors
    aliased: frozenset[int]
    rounding: tuple[float, ...] = ()


def make_inputs(case: Case, seed: int, device: torch.device, dtype: torch.dtype) -> Inputs:
    """The case's inputs for one seed: copies on `device`, floating-point ones rounded to `dtype`."""

    def copied(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype, copy=True)

    return tuple(mapped(copied, case.inputs(torch.Generator().manual_seed(seed % 2**63))))


def gradients_on(mode: Mode) -> torch.set_grad_enabled:
    return torch.set_grad_enabled(mode in ("forward+backward", "until"))


def gradient_leaves(case: Case, inputs: Inputs) -> list[Tensor]:
    """The tensors whose gradients are taken, with requires_grad set."""
    given = inputs if case.gradients is None else [inputs[index] for index in case.gradients]
    return [tensor.requires_grad_() for tensor in tensors(given) if tensor.is_floating_point()]


def bind(
    variant: Variant, case: Case, mode: Mode, inputs: Inputs, cotangents: Sequence[Tensor]
) -> Callable[[], Any]:
    """A function without arguments that returns the values to check. Call it under `gradients_on(mode)`.

    The inputs are prepared within the call, so that the gradients are those of the case's inputs. In
    mode "decode", the second of two calls starts from the first call's state.
    """
    call = twice(variant.call, case.state) if mode == "decode" else variant.call
    prepare = variant.prepare
    if prepare is None:
        return bound(call, case, mode, inputs, cotangents)
    return bound(lambda *given: call(*prepare(*given)), case, mode, inputs, cotangents)


def twice(call: Callable[..., Any], state: int) -> Callable[..., Any]:
    """A call that returns the outputs of two consecutive calls. The second starts from the first one's state.

    state  index of the state argument
    """

    def carried_on(*inputs: Any) -> tuple[Any, Any]:
        first, carried = call(*inputs)
        # The output may share memory with the state, which the next call changes.
        first = mapped(Tensor.clone, first)
        second, _ = call(*inputs[:state], carried, *inputs[state + 1 :])
        return first, second

    return carried_on


def bound(
    call: Callable[..., Any], case: Case, mode: Mode, inputs: Inputs, cotangents: Sequence[Tensor]
) -> Callable[[], Any]:
    if mode != "forward+backward":
        return partial(call, *inputs)
    wanted = gradient_leaves(case, inputs)

    def forward_and_backward() -> tuple[Any, ...]:
        outputs = results(call(*inputs))
        differentiable = [out for out in outputs if isinstance(out, Tensor) and out.requires_grad]
        # Raises an error if the numbers of tensors differ or there are none.
        gradients = torch.autograd.grad(
            differentiable, wanted, cotangents, allow_unused=True, materialize_grads=True
        )
        return (*outputs, *gradients)

    return forward_and_backward


def results(returned: Any) -> Sequence[Any]:
    """The tensors that a call returned, in order."""
    return (returned,) if type(returned) is Tensor else leaves(returned)


def allowed_error(case: Case, mode: Mode, dtype: torch.dtype, numel: int) -> float:
    """The largest allowed error of one output, relative to the output's largest magnitude.

    Longer reductions accumulate more rounding errors; their length is estimated as the multiply-adds per
    element. Half precisions also round intermediate results, but accumulate in float32. If these errors add
    up, the naive variant's own error widens the bound (`Reference.rounding`).
    """
    if case.tolerance is not None:
        return case.tolerance
    cost = case.cost[mode]
    reduction = _UNKNOWN_REDUCTION
    if cost is not None:
        reduction = min(max(cost.flops / 2 / max(numel, 1), 16.0), 65536.0)
    eps = torch.finfo(dtype).eps
    rounding = 4 * eps if eps > _SINGLE_EPS else 0.0
    allowed = 16 * min(eps, _SINGLE_EPS) * math.sqrt(reduction) + rounding
    return 2 * allowed if mode == "forward+backward" else allowed


class CorrectnessCheck:
    """The checks for one case and mode. Stores the references, which all variants share.

    Raises ValueError if the case has neither an oracle nor a naive variant.
    """

    def __init__(
        self, case: Case, mode: Mode, *, device: torch.device, dtype: torch.dtype, seed: int
    ) -> None:
        self.case, self.mode, self.device, self.dtype = case, mode, device, dtype
        self.seed = seed
        self._naive = next((variant for variant in case.variants if variant.role == "naive"), None)
        if case.oracle is not None:
            self._oracle = Variant(name="oracle", role="naive", call=case.oracle)
        elif self._naive is not None:
            self._oracle = self._naive
        elif mode != "until":
            raise ValueError(f"case {case.name!r} has neither an oracle nor a naive variant")
        cost = case.cost[mode]
        small = (cost.flops if cost else 0.0) <= _FLOAT64_FLOPS.get(device.type, -1.0)
        self._exact = torch.float64 if small or dtype == torch.float64 else torch.float32
        self._references: dict[int, Reference] = {}
        self._drawn = 0
        self._differentiable: list[torch.Size] = []  # output shapes, from the oracle

    def before(self, variant: Variant) -> Check:
        """Check two seeds. The second seed's inputs use the same memory as the first seed's.

        That detects results cached by address, by `id()` or by version. An "until" is checked on the two
        seeds that are timed.
        """
        return self._guarded(self._before_until if self.mode == "until" else self._before, variant)

    def after(self, variant: Variant, before: Check) -> Check:
        """Check a third seed, which the timing did not use, and check that new contents take no longer.

        A passed check keeps the larger errors of both checks and the time of the first call.
        """
        check = self._guarded(self._after_until if self.mode == "until" else self._after, variant)
        if not check.passed:
            return check
        return replace(before, errors=worst(before.errors, check.errors))

    def timed_inputs(self, sets: int = 2) -> list[tuple[Inputs, Tensors]]:
        """Input sets that alternate during timing, each with its cotangents.

        Call it after `before`, because the oracle determines which outputs are differentiable.
        """
        return [self._set(self.seed + index) for index in range(sets)]

    def fresh_inputs(self) -> tuple[Inputs, Tensors]:
        """An input set that no call has seen."""
        self._drawn += 1
        return self._set(self.seed + _FRESH + self._drawn)

    def _set(self, seed: int) -> tuple[Inputs, Tensors]:
        return make_inputs(self.case, seed, self.device, self.dtype), self._cotangents(seed)

    def _cotangents(self, seed: int) -> Tensors:
        # Do not use the inputs as cotangents, because a normalisation's gradient along its input is zero.
        draw = torch.Generator().manual_seed((seed + _COTANGENTS) % 2**63)
        return tuple(
            torch.randn(shape, generator=draw).to(self.device, self.dtype) for shape in self._differentiable
        )

    def touched_bytes(self) -> int:
        """Size of one input set and of the outputs that do not share its memory, in the run's dtype."""
        reference = self.reference(self.seed)
        outputs = [
            out.numel() * (self.dtype.itemsize if out.is_floating_point() else out.itemsize)
            for index, out in enumerate(reference.outputs)
            if index not in reference.aliased
        ]
        inputs = make_inputs(self.case, self.seed, self.device, self.dtype)
        return sum(tensor.nbytes for tensor in tensors(inputs)) + sum(outputs)

    def forget(self) -> None:
        """Free the oracle's answers."""
        self._references.clear()

    def reference(self, seed: int) -> Reference:
        if seed not in self._references:
            try:
                reference = self._ask_within_memory(seed)
                self._references[seed] = replace(reference, rounding=self._rounding(seed, reference))
            except Exception as error:  # from the plugin's code
                raise IncorrectError(one_line(f"no oracle: {type(error).__name__}: {error}")[:300]) from error
        return self._references[seed]

    def _ask_within_memory(self, seed: int) -> Reference:
        try:
            return self._ask(seed)
        except torch.OutOfMemoryError:
            if self._exact == torch.float32:
                raise
            self._exact = torch.float32
            return self._ask(seed)

    def _ask(self, seed: int) -> Reference:
        # The oracle gets the same inputs as the variants, rounded to the run's dtype.
        inputs = self._exact_inputs(seed)
        cotangents: Tensors = ()
        with gradients_on(self.mode):
            wanted = gradient_leaves(self.case, inputs) if self.mode == "forward+backward" else []
            prepare = self._oracle.prepare
            call = twice(self._oracle.call, self.case.state) if self.mode == "decode" else self._oracle.call
            outputs = tuple(results(call(*(prepare(*inputs) if prepare else inputs))))
            if self.mode == "forward+backward":
                differentiable = [out for out in outputs if out.requires_grad]
                self._differentiable = [out.shape for out in differentiable]
                cotangents = self._cotangents(seed)
                widened = [c.to(out.dtype) for c, out in zip(cotangents, differentiable, strict=True)]
                gradients = torch.autograd.grad(
                    differentiable, wanted, widened, allow_unused=True, materialize_grads=True
                )
                outputs = (*outputs, *gradients)
        memory = {_storage(tensor) for tensor in tensors(inputs)}
        aliased = frozenset(i for i, out in enumerate(outputs) if _storage(out) in memory)
        return Reference(tuple(out.detach() for out in outputs), cotangents, aliased)

    def _exact_inputs(self, seed: int) -> Inputs:
        given = make_inputs(self.case, seed, self.device, self.dtype)
        return tuple(mapped(lambda tensor: tensor.to(_widened(tensor.dtype, self._exact)), given))

    def _rounding(self, seed: int, reference: Reference) -> tuple[float, ...]:
        """The error of the naive variant that half precision alone explains.

        Empty if the variant fails, or is wrong in full precision too.
        """
        if self._naive is None or torch.finfo(self.dtype).eps <= _SINGLE_EPS:
            return ()
        try:
            if max(self._errors(self._naive, self._exact_inputs(seed), reference), default=0.0) > 1e-3:
                return ()
            inputs = make_inputs(self.case, seed, self.device, self.dtype)
            return tuple(self._errors(self._naive, inputs, reference))
        except Exception:  # the variant's own check will report the error
            return ()

    def _errors(self, variant: Variant, inputs: Inputs, reference: Reference) -> list[float]:
        with gradients_on(self.mode):
            outputs = results(bind(variant, self.case, self.mode, inputs, reference.cotangents)())
        pairs = enumerate(zip(outputs, reference.outputs, strict=True))
        largest = _magnitude(*reference.outputs)
        errors = [_error(index, out.detach(), exact, largest)[1] for index, (out, exact) in pairs]
        return [*errors, _together(outputs, reference.outputs)]

    def _guarded(self, check: Callable[[Variant], Check], variant: Variant) -> Check:
        try:
            return check(variant)
        except IncorrectError as error:
            return Check(False, error.errors, str(error), self._oracle_name)
        except Exception as error:  # a plugin's code may raise anything, and the result reports it
            if isinstance(error, torch.OutOfMemoryError) and self.device.type == "cuda":
                torch.cuda.empty_cache()
            return replace(failed(error), oracle=self._oracle_name)

    @property
    def _oracle_name(self) -> str:
        return str(self._exact).removeprefix("torch.")

    def _before(self, variant: Variant) -> Check:
        first, second = self.reference(self.seed), self.reference(self.seed + 1)
        inputs = make_inputs(self.case, self.seed, self.device, self.dtype)
        outputs, errors, seconds = self._call_and_compare(variant, inputs, first)
        held = [out.detach().clone() for out in outputs]
        others = make_inputs(self.case, self.seed + 1, self.device, self.dtype)
        inputs = _refill(inputs, others)
        for index, (out, kept) in enumerate(zip(outputs, held, strict=True)):
            if index not in first.aliased and self.mode != "step" and not _same(out, kept):
                raise IncorrectError(f"output {index} changes when the inputs are overwritten after the call")
        del outputs, held
        _, more, again = self._call_and_compare(variant, inputs, second)
        errors = max(errors[0], more[0]), max(errors[1], more[1])
        return Check(True, errors, oracle=self._oracle_name, first_call_s=seconds, call_s=again)

    def _after(self, variant: Variant) -> Check:
        seed = self.seed + _LAST
        inputs = make_inputs(self.case, seed, self.device, self.dtype)
        reference = self.reference(seed)
        _, errors, seconds = self._call_and_compare(variant, inputs, reference)
        if self.mode not in ("step", "decode") and not self.case.fresh and seconds < 0.5:
            self._reject_memory(variant, inputs, reference, 5 if seconds < 0.01 else 2)
        return Check(True, errors, oracle=self._oracle_name)

    def _before_until(self, variant: Variant) -> Check:
        (seconds, one), (again, other) = (self._reach(variant, self.seed + index) for index in range(2))
        reported = {name: (one[name] + other.get(name, math.nan)) / 2 for name in one}
        return Check(True, first_call_s=seconds, call_s=again, reported=reported)

    def _after_until(self, variant: Variant) -> Check:
        self._reach(variant, self.seed + _LAST)
        return Check(True)

    def _reach(self, variant: Variant, seed: int) -> tuple[float, dict[str, float]]:
        """The seconds that an "until" took, and the effort it reports. Raises IncorrectError."""
        inputs = make_inputs(self.case, seed, self.device, self.dtype)
        kept = self._kept(inputs)
        returned, seconds = self._run(bind(variant, self.case, self.mode, inputs, ()))
        if not isinstance(returned, Mapping) or "reached" not in returned:
            raise IncorrectError(
                'an "until" must return a dictionary whose "reached" tells whether it met its goal'
            )
        self._check_inputs(kept)
        reported = {name: float(value) for name, value in returned.items() if name != "reached"}
        if not returned["reached"]:
            took = ", ".join(f"{name} {value:g}" for name, value in reported.items())
            raise IncorrectError("did not reach the required value" + (f" ({took})" if took else ""))
        return seconds, reported

    def _reject_memory(self, variant: Variant, inputs: Inputs, reference: Reference, calls: int) -> None:
        """Raises IncorrectError if new contents take several times as long as contents that were just seen.

        Whatever its key, a cached result is fast only for known contents.
        """
        call = bind(variant, self.case, self.mode, inputs, reference.cotangents)
        # On a CPU, measure this process's own CPU time, which does not depend on other processes.
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        floating = [tensor for tensor in tensors(inputs) if tensor.is_floating_point()]

        def fastest(change: bool) -> float:
            times = []
            for _ in range(calls):
                for tensor in floating:
                    # Known contents are rewritten as well, so that caches are equally cold. New contents are
                    # the same values in other places, so they still lie in the domain of the function.
                    tensor.data.copy_(tensor.detach().roll(1) if change else tensor.detach().clone())
                times.append(self._run(call, clock)[1])
            return min(times)

        for _ in range(_MEMORY_TRIES):
            known, new = fastest(change=False), fastest(change=True)
            if new <= _MEMOISED * known or new - known <= 50e-6:
                return
        raise IncorrectError(f"remembers results: new contents take {new / known:.0f} times as long")

    def _run(
        self, call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter
    ) -> tuple[Any, float]:
        with gradients_on(self.mode):
            devices.synchronize(self.device)
            start = clock()
            outputs = call()
            # Wait for all streams, because work hidden on another stream would otherwise not be finished.
            devices.synchronize(self.device)
            return outputs, clock() - start

    def _call_and_compare(
        self, variant: Variant, inputs: Inputs, reference: Reference
    ) -> tuple[list[Tensor], Errors, float]:
        """The outputs, (max_abs, max_rel) and the seconds of the call. Raises IncorrectError."""
        kept = self._kept(inputs)
        call = bind(variant, self.case, self.mode, inputs, reference.cotangents)
        self._fill_with_nan(reference)
        threads = torch.get_num_threads()
        returned, seconds = self._run(call)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
            raise IncorrectError("changes the number of threads")
        outputs = [_plain(index, out, self.device) for index, out in enumerate(results(returned))]
        # Copy the outputs immediately, to catch a thread that is still computing them.
        snapshot = [out.detach().clone() for out in outputs]
        self._check_inputs(kept, outputs)
        errors = self._compare(snapshot, reference)
        for index, (out, at_once) in enumerate(zip(outputs, snapshot, strict=True)):
            if not _same(out, at_once):
                raise IncorrectError(f"output {index} changes after the call has returned")
        return outputs, errors, seconds

    def _fill_with_nan(self, reference: Reference) -> None:
        """Write NaN to the memory that the call's outputs are likely to use."""
        held = [
            torch.full_like(out, math.nan, dtype=self.dtype, device=self.device)
            for out in reference.outputs
            if out.is_floating_point()
            for _ in range(2)
        ]
        del held

    def _kept(self, inputs: Inputs) -> list[tuple[Tensor, Tensor]]:
        """Tensors that a call must not change, with copies. A decoder may change its state."""
        own = self.case.state if self.mode == "decode" else None
        kept = tensors([argument for index, argument in enumerate(inputs) if index != own])
        return [(tensor, tensor.detach().clone()) for tensor in kept]

    def _check_inputs(self, kept: Sequence[tuple[Tensor, Tensor]], outputs: Sequence[Tensor] = ()) -> None:
        returned: set[int] = set()
        if self.mode == "step":
            returned = {_storage(out) for out in outputs}
            if not returned <= {_storage(tensor) for tensor, _ in kept}:
                raise IncorrectError("a step must change its inputs in place and return them")
        for index, (tensor, copy) in enumerate(kept):
            if _storage(tensor) not in returned and not _same(tensor, copy):
                raise IncorrectError(f"changes its input {index}")

    def _compare(self, outputs: Sequence[Tensor], reference: Reference) -> Errors:
        if len(outputs) != len(reference.outputs):
            raise IncorrectError(f"returns {len(outputs)} tensors, but expected {len(reference.outputs)}")
        errors: Errors | None = None
        largest = _magnitude(*reference.outputs)
        for index, (out, exact) in enumerate(zip(outputs, reference.outputs, strict=True)):
            if out.shape != exact.shape:
                raise IncorrectError(
                    f"output {index} has shape {tuple(out.shape)}, not the oracle's {tuple(exact.shape)}"
                )
            found = _error(index, out, exact, largest)
            allowed = allowed_error(self.case, self.mode, self.dtype, exact.numel())
            if reference.rounding and self.case.tolerance is None:
                allowed = max(allowed, min(_HALF_SLACK * reference.rounding[index], _HALF_MOST))
            if found[1] > allowed and not (self.case.together and reference.rounding):
                off = f"{found[1]:.2g} of its largest magnitude ({allowed:.2g} is allowed)"
                raise IncorrectError(f"output {index} is off by {off}", found)
            errors = worst(errors, found)
        if self.case.together and reference.rounding:
            error, allowed = _together(outputs, reference.outputs), _HALF_SLACK * reference.rounding[-1]
            if error > allowed:
                raise IncorrectError(f"all outputs together are off by {error:.2g} (at most {allowed:.2g})")
        return errors or (0.0, 0.0)


def _together(outputs: Sequence[Tensor], exact: Tensors) -> float:
    """The norm of all outputs' errors relative to the norm of all outputs."""
    pairs = [pair for pair in zip(outputs, exact, strict=True) if pair[1].is_floating_point()]
    wrong = sum((out.detach().to(right.dtype) - right).norm().item() ** 2 for out, right in pairs)
    whole = sum(right.norm().item() ** 2 for _, right in pairs)
    return math.sqrt(wrong / max(whole, torch.finfo(torch.float32).tiny))


def _magnitude(*tensors: Tensor) -> float:
    """The largest magnitude over all floating-point and complex tensors."""
    return max(
        (t.abs().max().item() for t in tensors if t.numel() and (t.is_floating_point() or t.is_complex())),
        default=0.0,
    )


def _error(index: int, out: Tensor, exact: Tensor, largest: float) -> Errors:
    """Largest absolute error, and the same relative to the oracle's largest magnitude.

    largest  magnitude over all outputs, used for an output that is mere rounding error in comparison (such as
             the gradient of a key's bias, which is zero)
    """
    if not (exact.is_floating_point() or exact.is_complex()):
        if not torch.equal(out.to(exact.dtype), exact):
            raise IncorrectError(f"output {index} differs from the oracle's")
        return 0.0, 0.0
    if not torch.isfinite(out).all():
        raise IncorrectError(f"output {index} has a NaN or an infinity")
    if not torch.isfinite(exact).all():
        raise IncorrectError(f"the oracle's output {index} has a NaN or an infinity")
    if not exact.numel():
        return 0.0, 0.0
    absolute = (out.to(exact.dtype) - exact).abs().max().item()
    own = exact.abs().max().item()
    scale = own if own > _NOTHING * torch.finfo(exact.dtype).eps * largest else largest
    return absolute, absolute / max(scale, torch.finfo(torch.float32).tiny)


def _plain(index: int, out: Any, device: torch.device) -> Tensor:
    """`out` if it is an ordinary tensor on the run's device. A subclass could be lazy."""
    if type(out) not in (Tensor, torch.nn.Parameter):
        raise IncorrectError(f"output {index} is a {type(out).__name__}, not a plain tensor")
    tensor: Tensor = out
    if tensor.layout != torch.strided or tensor.device != device:
        raise IncorrectError(f"output {index} is not a dense tensor on {device}")
    return tensor


def _widened(dtype: torch.dtype, exact: torch.dtype) -> torch.dtype:
    if dtype.is_complex:
        return torch.complex128 if exact == torch.float64 else torch.complex64
    return exact if dtype.is_floating_point else dtype


def _refill(inputs: Inputs, contents: Inputs) -> Inputs:
    """`inputs` filled with `contents`, in the same tensors if shapes and constants match."""
    held, new = leaves(inputs), leaves(contents)
    if [_form(leaf) for leaf in held] != [_form(leaf) for leaf in new]:
        return contents
    for old, fresh in zip(tensors(inputs), tensors(contents), strict=True):
        # `.data` does not change the version counter, so a cache that trusts the counter now errs.
        old.data.copy_(fresh)
    return inputs


def _form(leaf: Any) -> Any:
    return leaf.shape if isinstance(leaf, Tensor) else leaf


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _same(one: Tensor, other: Tensor) -> bool:
    """Bitwise equality, with NaN equal to itself."""
    return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())
