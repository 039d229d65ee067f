"""Judge one exercise: run the reader's function and the paper's on the same inputs, in a child process."""

from __future__ import annotations

import inspect
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from readtrack.practice import shown
from readtrack.practice.asif import as_if, lacks_numbers, term
from readtrack.practice.deadline import SlowError, deadline
from readtrack.practice.exercise import Exercise, Try
from readtrack.practice.parts import Parts, mapped, parts
from readtrack.practice.relations import factors_of, largest, region, relation, right, summand
from readtrack.practice.slips import Slips
from readtrack.practice.trials import SEED, Target, trials_of
from readtrack.text import counted, one_line

Outcome = Literal["passed", "wrong", "failed", "empty", "slow"]

_TRIES = 24  # maximum number of inputs
_EXPLAINING = 8.0  # seconds of CPU time for a hint
_EXPLAINED = 4  # number of differing inputs that one mistake must explain
_NOISE = 1e-13  # relative to the largest gradient
_CHANGED = " (changed)"
_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one exercise.

    outcome   passed; wrong (a different result); failed (an error); empty (not written yet); slow
    compared  number of inputs compared
    line      line number in the reader's file, 0 if unknown
    report    lines to print: the first failing input with its expected and found results
    hint      the likely mistake, or ""
    """

    name: str
    outcome: Outcome
    compared: int = 0
    line: int = 0
    report: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a call.

    parts    parts of the returned value and of the arguments that were changed in place
    changed  names of those arguments
    """

    parts: Parts
    changed: frozenset[str] = frozenset()
    grads: dict[str, Tensor | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mistake:
    """A part that differs, the input on which it differs, and the hint."""

    stage: str
    one: Try
    part: str
    expected: Any
    found: Any
    hint: str


class PaperError(Exception):
    """The paper's own function fails on an exercise's inputs, so the exercise is at fault."""


class WrongError(Exception):
    """The reader's function returned a wrong result."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.part)
        self.mistake = mistake


class Known:
    """Data that do not depend on the reader's answer: inputs, the paper's results, and results of mutants.

    They are kept between answers, because searching for a mistake takes longer than everything else.
    """

    def __init__(self, exercise: Exercise, target: Target) -> None:
        self.trials = list(trials_of(exercise, target))[:_TRIES]
        self.results: dict[tuple[object, ...], Result] = {}
        self.changed: defaultdict[Try, dict[int, Parts | None]] = defaultdict(dict)
        self.slips, self.gradient_slips = Slips(target.slot), Slips(target.slot)


def judge(
    exercise: Exercise, target: Target, answer: Callable[..., Any], known: Known | None = None
) -> Verdict:
    """Compare on all inputs: values and changed arguments, then gradients, then other precisions.

    Errors in the reader's code propagate, and so does PaperError.

    known  data kept from an earlier answer to the same exercise
    """
    judged = _Judged(exercise, target, answer, known or Known(exercise, target))
    trials = judged.trials
    try:
        judged.values()
        if exercise.gradients:
            judged.gradients()
        if exercise.half:
            judged.precisions()
    except WrongError as error:
        report, hint = _explained(error.mistake, target, exercise)
        return Verdict(name=exercise.name, outcome="wrong", compared=len(trials), report=report, hint=hint)
    return Verdict(name=exercise.name, outcome="passed", compared=len(trials))


class _Judged:
    def __init__(self, exercise: Exercise, target: Target, answer: Callable[..., Any], known: Known) -> None:
        self.exercise, self.target, self.answer = exercise, target, answer
        self.known, self.trials = known, known.trials

    def values(self) -> None:
        """Raises WrongError with the first difference, after checking all inputs for a common pattern."""
        fine: list[str] = []
        failed: list[str] = []
        wrong: list[tuple[Try, Result, Result]] = []
        for one in self.trials:
            expected = self._expected(one)
            try:
                found = self._reader(one)
            except Exception:  # the reader's code may raise anything; the first failing input is reported
                if not wrong:
                    raise
                failed.append(f"{one.label} (an error)")
                continue
            if found.changed != expected.changed or self._bad(expected, found):
                wrong.append((one, expected, found))
            else:
                fine.append(one.label)
        if wrong:
            first = self._difference(wrong)
            pattern = _pattern(fine, [*(one.label for one, _, _ in wrong), *failed])
            raise WrongError(replace(first, hint=_joined(first.hint, pattern)))

    def _bad(self, expected: Result, found: Result) -> list[str]:
        return _bad_parts(expected.parts, found.parts, self.exercise.tolerance)

    def _difference(self, wrong: list[tuple[Try, Result, Result]]) -> Mistake:
        """The difference on the first input with a wrong result. The hint considers all such inputs."""
        one, expected, found = wrong[0]
        arguments = self.target.named(one)
        extra = found.changed - expected.changed
        if extra:
            name = sorted(extra)[0]
            said = f"{name} was changed in place, which the caller does not expect: work on a copy"
            changed = next(
                part for key, part in found.parts.items() if key.startswith(name) and key.endswith(_CHANGED)
            )
            return Mistake("values", one, f"{name} afterwards", arguments.get(name), changed, said)
        missing = expected.changed - found.changed
        if missing:
            name = sorted(missing)[0]
            before = parts(arguments[name], name)
            changed = [
                key for key, old in before.items() if not _unchanged(old, expected.parts[key + _CHANGED])
            ]
            said = f"{name} must be changed in place, but is unchanged"
            if isinstance(arguments[name], nn.Module):
                said = (
                    f"the paper's code changes {_listed(changed[:2])}, but yours does not. Did you forget to "
                    "call a layer?"
                )
            part = changed[0] + _CHANGED
            return Mistake("values", one, part, expected.parts[part], before[changed[0]], said)
        bad = self._bad(expected, found)
        part = bad[0]
        a, b = expected.parts.get(part), found.parts.get(part)
        if set(expected.parts) != set(found.parts):
            return Mistake(
                "values", one, "result", _whole(expected), _whole(found), _structure(expected, found)
            )
        return Mistake("values", one, part, a, b, _searched(lambda: self._said(wrong, bad)))

    def _said(self, wrong: list[tuple[Try, Result, Result]], bad: list[str]) -> str:
        """A hint for the first input with a wrong result, consistent with all such inputs."""
        one, expected, found = wrong[0]
        arguments, part = self.target.named(one), bad[0]
        a, b = expected.parts.get(part), found.parts.get(part)
        said = self._as_if(wrong)
        # A query that sees no key is a separate problem: its NaNs would hide other explanations.
        seen = [(one, found.parts) for one, _, found in wrong if not lacks_numbers(found.parts)]
        if not said and seen and seen[0][0] is one:
            said = self.known.slips.explain(self._with_mistake, seen[:_EXPLAINED])
        hints = [said, _relation(a, b, arguments)]
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            hints.insert(0, summand(a, b, arguments))
        if bad != list(expected.parts):
            hints.append(
                f"{_listed(bad)} {'is' if len(bad) == 1 else 'are'} wrong, but the other results are right"
            )
        if not any(hints) and isinstance(a, Tensor) and isinstance(b, Tensor):
            factors = factors_of(arguments)
            said = term(self._again(one), one, self.target.signature, part, (a, b), factors)
            hints.append(said or region(a, b))
        return _joined(*hints)

    def _as_if(self, wrong: list[tuple[Try, Result, Result]]) -> str:
        """A change to an argument that explains the first wrong result and also, if there is one, the next
        wrong result with the same arguments.
        """
        one, _, found = wrong[0]
        said = self._changed(one, found)
        alike = (
            other
            for other in wrong[1:]
            if self.target.named(other[0]).keys() == self.target.named(one).keys()
        )
        if said and (second := next(alike, None)):
            return said if said == self._changed(second[0], second[2]) else ""
        return said

    def _changed(self, one: Try, found: Result) -> str:
        kept = self.known.changed[one]
        return as_if(self._again(one), one, self.target.signature, found.parts, kept)

    def _with_mistake(self, one: Try) -> Parts:
        """The result with the mutated function in place of the paper's."""
        return self._paper(one, own=False).parts

    def _again(self, one: Try) -> Callable[[Try], Parts]:
        """The paper's function on other arguments."""
        return lambda changed: self._paper(changed).parts

    def gradients(self) -> None:
        for one in self.trials:
            try:
                expected = self._expected(one, gradients=True)
            except PaperError:
                continue  # for example because of a change in place: there are no gradients to compare
            if not expected.grads:
                continue
            found = self._reader(one, gradients=True)
            names = list(expected.grads)
            bad = [name for name in names if not self._same_gradient(expected, found, name)]
            for name in bad:
                a, b = expected.grads[name], found.grads.get(name)
                others = "the results and all other gradients are right" if len(bad) == 1 else ""
                if b is None:
                    said = (
                        f"the result is right, but no gradient reaches {name}: it is not used, or it is cut "
                        "off by detach(), item(), a new tensor or no_grad()"
                    )
                elif not torch.isfinite(b).all() and (a is None or torch.isfinite(a).all()):
                    said = (
                        "the result is right, but this gradient is not finite: torch.where and masked_fill "
                        "hide a NaN in a result, not in its gradient. Make the divisor or the logit harmless "
                        "before it is used"
                    )
                else:
                    related = _searched(partial(self._said_of_gradient, one, found, (a, b)))
                    said = _joined(
                        related,
                        others or f"the results are right, but the gradients of {_listed(bad)} are wrong",
                    )
                raise WrongError(Mistake("gradients", one, f"gradient of {name}", a, b, said))

    def _said_of_gradient(self, one: Try, found: Result, pair: tuple[Tensor | None, Tensor]) -> str:
        """A hint about a gradient. Searches the backward pass if the exercise is about it."""

        def with_mistake(one: Try) -> Parts:
            return dict(self._paper(one, own=False, gradients=True).grads)

        related = _relation(*pair, self.target.named(one))
        said = self.known.gradient_slips.explain(with_mistake, [(one, dict(found.grads))])
        if not (said or related) and pair[0] is not None:
            return region(pair[0], pair[1])
        return _joined(said, related)

    def _same_gradient(self, expected: Result, found: Result, name: str) -> bool:
        a, b = expected.grads[name], found.grads.get(name)
        if a is None:
            return b is None or not b.any()
        if b is None:
            return not a.any()
        # After a saturated softmax a gradient is 0 up to rounding.
        noise = _NOISE * max(largest(one.detach()) for one in expected.grads.values() if one is not None)
        return b.shape == a.shape and bool(right(a, b, 10 * self.exercise.tolerance, noise).all())

    def precisions(self) -> None:
        """Compare dtypes, and compare errors in lower precision with the errors of the paper's code.

        Skips precisions in which the paper's code does not run on this device.
        """
        for one in self.trials:
            for dtype in _PRECISIONS:
                try:
                    paper = self._expected(one, dtype)
                    exact = self._expected(one, torch.float64, rounded=dtype)
                except Exception:  # the paper's own code need not run in this precision
                    continue
                try:
                    found = self._reader(one, dtype)
                except RuntimeError as error:
                    if "not implemented for" in str(error):
                        continue  # an operation not implemented on this device in this precision
                    raise
                for name, value in paper.parts.items():
                    self._check_precision(
                        one, dtype, name, exact.parts.get(name), value, found.parts.get(name)
                    )

    def _check_precision(
        self, one: Try, dtype: torch.dtype, name: str, exact: Any, value: Any, other: Any
    ) -> None:
        stage = str(dtype).removeprefix("torch.")
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        if not isinstance(other, Tensor) or other.dtype != value.dtype:
            have = (
                str(other.dtype).removeprefix("torch.") if isinstance(other, Tensor) else type(other).__name__
            )
            said = (
                f"the result is right in float64, but for {stage} inputs the dtype is {have}: keep the "
                "dtype of the inputs"
            )
            raise WrongError(Mistake(stage, one, name, value, other, said))
        if not isinstance(exact, Tensor) or exact.shape != other.shape:
            return
        usable = torch.isfinite(value) & torch.isfinite(exact)
        if not usable.any():
            return
        if not torch.isfinite(other[usable]).all():
            said = (
                f"the result is right in float64, but overflows in {stage}: scale before you multiply or "
                "exponentiate"
            )
            raise WrongError(Mistake(stage, one, name, value, other, said))
        error, allowed = ((x.double() - exact.double()).abs()[usable].max().item() for x in (other, value))
        most = exact[usable].abs().max().item()
        if error > max(6 * allowed, 16 * torch.finfo(dtype).eps * most):
            said = (
                f"the result is right in float64, but in {stage} its error is {shown.number(error)}, against "
                f"{shown.number(allowed)} for the paper's code: sum in a higher precision, or in a different "
                "order"
            )
            raise WrongError(Mistake(stage, one, name, value, other, said))

    # Calls

    def _expected(self, one: Try, dtype: torch.dtype = torch.float64, **how: Any) -> Result:
        """The paper's result on one of the exercise's inputs."""
        key = (one, dtype, *sorted(how.items()))
        if key not in self.known.results:
            self.known.results[key] = self._paper(one, dtype, **how)
        return self.known.results[key]

    def _paper(self, one: Try, dtype: torch.dtype = torch.float64, *, own: bool = True, **how: Any) -> Result:
        """The result of the paper's function, or of its replacement unless `own`."""
        with self.target.slot.replaced(None if own else self.target.slot.replacement):
            try:
                return self._called(one, dtype, **how)
            except Exception as error:
                raise PaperError(f"{one.label}: {type(error).__name__}: {error}") from error

    def _reader(self, one: Try, dtype: torch.dtype = torch.float64, **how: Any) -> Result:
        with self.target.slot.replaced(self.answer):
            found = self._called(one, dtype, **how)
        if not all(map(_is_plain, found.parts.values())):
            raise TypeError("it returns a sparse, nested or quantised tensor; return a dense one")
        return found

    def _called(
        self, one: Try, dtype: torch.dtype, *, gradients: bool = False, rounded: torch.dtype | None = None
    ) -> Result:
        def own(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.clone()
            made = tensor.detach().to(rounded or dtype).to(dtype, copy=True)
            return made.requires_grad_(gradients)

        arguments, named = mapped(own, one.arguments), mapped(own, one.named)
        given = self.target.named(Try(one.label, *arguments, **named))
        before = {} if gradients else {name: _kept(value, name) for name, value in given.items()}
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed takes ten times as long
        value = self.target.call(*arguments, **named)
        if inspect.isgenerator(value):
            value = list(value)
        found = parts(value)
        changed = set()
        for name, old in before.items():
            if not _same(old, now := parts(given[name], name)):
                changed.add(name)
                found |= {f"{part}{_CHANGED}": tensor for part, tensor in now.items()}
        if not gradients:
            detached = {
                name: part.detach() if isinstance(part, Tensor) else part for name, part in found.items()
            }
            return Result(detached, frozenset(changed))
        return Result(found, grads=_gradients(found, given))


def is_of_answer(error: BaseException) -> bool:
    """Whether the reader's function raised the error or could not be called.

    Otherwise the error is readtrack's own.
    """
    reader = _Judged._reader.__code__
    return any(frame.f_code is reader for frame, _ in traceback.walk_tb(error.__traceback__))


def own_error(error: BaseException) -> str:
    """`TypeError: message (relations.py:12)`, for an error in readtrack itself."""
    inner = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {one_line(str(error))} ({Path(inner.filename).name}:{inner.lineno})"


def _searched(search: Callable[[], str]) -> str:
    """The hint, if any. Neither the time nor the errors of the search count against the reader."""
    try:
        with deadline(_EXPLAINING):
            return search()
    except SlowError:
        return ""
    except Exception as error:
        return (
            f"the search for your mistake failed, which is a bug in readtrack: {own_error(error)}. Please "
            "report it and attach your file. The expected and found values are still correct"
        )


def _gradients(found: Parts, given: Mapping[str, Any]) -> dict[str, Tensor | None]:
    leaves = {
        part: tensor
        for name, value in given.items()
        for part, tensor in parts(value, name).items()
        if isinstance(tensor, Tensor) and tensor.requires_grad
    }
    outputs = [
        part
        for part in found.values()
        if isinstance(part, Tensor) and part.requires_grad and not part.is_complex()
    ]
    if not leaves:
        return {}
    if not outputs:
        return dict.fromkeys(leaves)
    draw = torch.Generator().manual_seed(SEED)
    # A sum needs no explicit gradient. To check an explicit one, torch would import sympy, which takes a
    # second.
    weighted = [
        (out * torch.randn(out.shape, generator=draw, dtype=torch.float64).to(out.dtype)).sum()
        for out in outputs
    ]
    grads = torch.autograd.grad(weighted, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, grads, strict=True))


def _is_plain(part: Any) -> bool:
    """Whether the part can be compared. Sparse, nested and quantised tensors cannot."""
    if not isinstance(part, Tensor):
        return True
    return part.layout is torch.strided and not part.is_nested and not part.is_quantized


def _kept(value: Any, name: str) -> Parts:
    """A copy of an argument's parts before a call."""
    return {
        part: tensor.detach().clone() if isinstance(tensor, Tensor) else tensor
        for part, tensor in parts(value, name).items()
    }


def _same(a: Parts, b: Parts) -> bool:
    """Whether nothing changed, by exact comparison."""
    return a.keys() == b.keys() and all(_unchanged(one, b[name]) for name, one in a.items())


def _unchanged(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b) or (a.shape == b.shape and bool(right(a, b, 0.0).all()))
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return not isinstance(a, bool | int | float | str | type(None)) or bool(a == b)


def _bad_parts(expected: Parts, found: Parts, tolerance: float) -> list[str]:
    names = list(dict.fromkeys([*expected, *found]))
    return [name for name in names if not _equal(expected.get(name), found.get(name), tolerance)]


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    a, b = (torch.tensor(float(x), dtype=torch.float64) if isinstance(x, float) else x for x in (a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same_kind = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
        return same_kind and bool(right(a, b, tolerance).all())
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    if type(a) is not type(b):
        return False
    return bool(a == b) if isinstance(a, bool | int | str | bytes | type(None) | set | frozenset) else True


def _relation(expected: Any, found: Any, arguments: Mapping[str, Any]) -> str:
    if isinstance(expected, Tensor) and isinstance(found, Tensor):
        return relation(expected, found, factors_of(arguments))
    if isinstance(expected, float) and isinstance(found, float):
        a, b = (torch.tensor([x], dtype=torch.float64) for x in (expected, found))
        return relation(a, b, factors_of(arguments))
    if found is None:
        return "nothing was returned: a return is missing"
    if type(expected) is not type(found):
        return f"it is {_article(found)}, expected {_article(expected)}"
    if isinstance(expected, int) and isinstance(found, int) and abs(found - expected) == 1:
        return f"it is too {'large' if found > expected else 'small'} by one"
    if isinstance(expected, int) and isinstance(found, int):
        return _relation(float(expected), float(found), arguments)
    return ""


def _article(value: Any) -> str:
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _whole(result: Result) -> Any:
    """For a message: the only part, or the kinds of all parts."""
    values = list(result.parts.values())
    return values[0] if len(values) == 1 else [shown.kind(value) for value in values]


def _structure(expected: Result, found: Result) -> str:
    if list(found.parts.values()) == [None]:
        return "nothing was returned: a return is missing"
    want = counted(len(expected.parts), "value")
    if not found.parts:
        return f"an empty list, tuple or dictionary was returned instead of {want}"
    if list(expected.parts) == ["result"]:
        return f"a list, tuple or dictionary of {len(found.parts)} items was returned instead of one result"
    return f"{counted(len(found.parts), 'value')} returned instead of {want}: {_listed(list(expected.parts))}"


def _listed(names: list[str]) -> str:
    shown_names = names[:4] + ["…"] * (len(names) > 4)
    return ", ".join(shown_names)


def _pattern(fine: list[str], wrong: list[str]) -> str:
    """On which inputs the result was right or wrong, if both occurred."""
    if not fine or not wrong:
        return ""
    total, fewer = len(fine) + len(wrong), min(fine, wrong, key=len)
    named = ", ".join(f"“{label}”" for label in fewer[:3]) + ", …" * (len(fewer) > 3)
    return f"the result is {'right' if fewer is fine else 'wrong'} on {len(fewer)} of {total} inputs: {named}"


def _joined(*hints: str) -> str:
    return ". ".join(dict.fromkeys(hint for hint in hints if hint)).replace("?. ", "? ")


def _explained(mistake: Mistake, target: Target, exercise: Exercise) -> tuple[tuple[str, ...], str]:
    one = mistake.one
    arguments = target.named(one)
    called = exercise.through or exercise.of
    lines = [f"{called.rpartition('.')[2]}({', '.join(arguments)})   {one.label}"]
    if mistake.stage not in ("values", "gradients"):
        lines[0] += f", {mistake.stage}"
    for name, value in arguments.items():
        lines += (f"  {line}" for line in shown.argument(name, value))
    if mistake.part != "result":
        lines.append(f"{mistake.part}:")
    lines += (f"  {line}" for line in shown.pair(mistake.expected, mistake.found))
    return tuple(lines), mistake.hint
