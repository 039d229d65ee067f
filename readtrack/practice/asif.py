"""Hints such as "as if it were not causal": with an argument changed, the paper's code agrees."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations, islice
from typing import Any

import torch
from torch import Tensor, nn

from readtrack.practice.exercise import Try
from readtrack.practice.parts import Parts, leaves, mapped
from readtrack.practice.relations import Factors, close, named
from readtrack.practice.shown import number

_MOST = 120  # calls of the paper's function
_OF_MODULE = 40  # maximum number of these calls per module among the arguments


def as_if(
    call: Callable[[Try], Parts],
    one: Try,
    signature: inspect.Signature,
    found: Parts,
    kept: dict[int, Parts | None],
) -> str:
    """A sentence, or "" if no small change of the arguments explains the reader's result.

    kept  results of `call` for this input, by the number of the change; None for an error. Extended in place
    """
    if lacks_numbers(found):
        return ""  # many changes produce NaN, so none of them explains it
    for index, (said, changed) in enumerate(islice(_changes(one, list(signature.parameters)), _MOST)):
        if index not in kept:
            try:
                kept[index] = call(changed)
            except Exception:  # the paper's code need not accept the changed arguments
                kept[index] = None
        other = kept[index]
        if other is not None and same(other, found):
            return said
    return ""


def term(
    call: Callable[[Try], Parts],
    one: Try,
    signature: inspect.Signature,
    part: str,
    pair: tuple[Tensor, Tensor],
    factors: Factors,
) -> str:
    """A sentence about the argument whose term in a sum has a wrong factor, found by calling the paper's
    function without it.

    pair  the expected and the found part
    """
    expected, found = (tensor.double() for tensor in pair)
    if expected.shape != found.shape or expected.numel() < 2:
        return ""
    for name, place, value in _places(one, list(signature.parameters)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        try:
            rest = call(_with(one, {place: torch.zeros_like(value)}))[part].double()
        except Exception:  # the paper's code need not accept zeros for this argument
            continue
        right, wrong = expected - rest, found - rest
        factor = ((right * wrong).sum() / right.square().sum()).item()
        if rest.any() and factor and close(factor * right + rest, found):
            said = named(factor, factors)
            return f"the part that {name} adds is {number(factor)} times what it should be: {said}"
    return ""


def same(a: Parts, b: Parts) -> bool:
    """Whether all parts are equal up to rounding."""
    return a.keys() == b.keys() and all(_equal(x, b[name]) for name, x in a.items())


def lacks_numbers(found: Parts) -> bool:
    """Whether a part contains NaN."""
    tensors = [part for part in found.values() if isinstance(part, Tensor) and not part.is_meta]
    return any(bool(part.isnan().any()) for part in tensors)


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x.dtype == y.dtype and x.device == y.device and close(x, y)
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return False
    return not isinstance(x, int | float) or bool(x == y)


def _changes(one: Try, names: list[str]) -> Iterator[tuple[str, Try]]:
    places = _places(one, names)
    for name in one.named:
        without = {key: other for key, other in one.named.items() if key != name}
        yield (
            f"as if {name} had not been given ({name} is ignored)",
            Try(one.label, *one.arguments, **without),
        )
    modules = [(name, place, value) for name, place, value in places if isinstance(value, nn.Module)]
    for name, place, value in places:
        for said, other in _values(name, value):
            yield said, _with(one, {place: other})
    for (name, place, value), (name2, place2, value2) in combinations(places, 2):
        if _alike(value, value2):
            yield f"as if {name} and {name2} were swapped", _with(one, {place: value2, place2: value})
    for name, place, module in modules:  # there are many changes, and each is slow
        for said, changed in islice(_modules(name, module), _OF_MODULE):
            yield said, _with(one, {place: changed})


def _places(one: Try, names: list[str]) -> list[tuple[str, int | str, Any]]:
    """The name, position and value of each argument."""
    given = enumerate(one.arguments)
    places: list[tuple[str, int | str, Any]] = [
        (names[i] if i < len(names) else f"argument {i}", i, value) for i, value in given
    ]
    return places + [(name, name, value) for name, value in one.named.items()]


def _alike(one: Any, other: Any) -> bool:
    """Whether the two can be swapped."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape
    if not (isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other)):
        return False
    return all(_alike(*pair) for pair in zip(one, other, strict=True))


def _values(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield f"as if {name} were {not value}", not value
    elif isinstance(value, int):
        for count in (value - 1, value + 1, 0, 1):
            yield f"as if {name} were {count}, not {value}", count
        if name in ("t", "step"):  # not a number of steps, which would loop
            yield (
                f"as if {name} were very large: a term that depends on {name} (a correction) is missing",
                10**9,
            )
    elif isinstance(value, float):
        for said, other in (
            (0.0, 0.0),
            (1.0, 1.0),
            (f"1 − {name}", 1 - value),
            (f"−{name}", -value),
            (f"{name}²", value**2),
        ):
            yield f"as if {name} were {said}" + (": it is not used" if said in (0.0, 1.0) else ""), other
    elif isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, float) for part in value):
        yield f"as if the two values in {name} were swapped", value[::-1]
        for index in (0, 1):
            for end in (0.0, 1.0):
                changed = list(value)
                changed[index] = end
                yield f"as if {name}[{index}] were {end}: it is not used", tuple(changed)
    elif isinstance(value, Tensor):
        yield from _tensors(name, value)
    elif isinstance(value, list) and any(part.is_floating_point() for part in leaves(value)):
        yield f"as if {name} were 0: it is not used", mapped(torch.zeros_like, value)
        yield f"as if the sign of {name} were flipped", mapped(torch.neg, value)


def _modules(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The module with two parts swapped, one used in place of another, or a weight set to zero.

    Yields the same module each time and restores it at the end, so the call must copy it.
    """
    parts = {part: dict(inner.named_parameters()) for part, inner in module.named_modules() if part}
    for (one, own), (other, others) in combinations(parts.items(), 2):
        if own and {key: w.shape for key, w in own.items()} == {key: w.shape for key, w in others.items()}:
            first = {f"{one}.{key}": others[key] for key in own}
            second = {f"{other}.{key}": own[key] for key in own}
            for said, weights in (
                (f"as if {name}.{one} and {name}.{other} were swapped", first | second),
                (f"as if {name}.{one} were used instead of {name}.{other}", second),
                (f"as if {name}.{other} were used instead of {name}.{one}", first),
            ):
                with _weighted(module, weights):
                    yield said, module
    for one, weight in module.named_parameters():
        with _weighted(module, {one: torch.zeros_like(weight)}):
            yield f"as if {name}.{one} were 0: it is not used", module


@contextmanager
def _weighted(module: nn.Module, changes: dict[str, Tensor]) -> Iterator[None]:
    """Replace the values of these weights within the block."""
    before = {name: module.get_parameter(name).data for name in changes}
    after = {name: weight.detach().clone() for name, weight in changes.items()}
    try:
        for name, weight in after.items():
            module.get_parameter(name).data = weight
        yield
    finally:
        for name, weight in before.items():
            module.get_parameter(name).data = weight


def _tensors(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if value.dtype == torch.bool:
        yield f"as if {name} were negated: True and False are mixed up", ~value
        yield f"as if {name} were all True: it is not used", torch.ones_like(value)
        return
    yield f"as if {name} were 0: it is not used, or it is not passed on", torch.zeros_like(value)
    yield f"as if {name} were 1: it is not used", torch.ones_like(value)
    if value.is_floating_point():
        yield f"as if the sign of {name} were flipped", -value
        yield f"as if {name} were divided by 2", value / 2
        yield f"as if {name} were twice as large", value * 2
        yield f"as if {name} were squared", value * value
    if value.ndim >= 2 and value.shape[-1] == value.shape[-2]:
        yield f"as if {name} were transposed", value.mT
    for dimension in range(value.ndim):
        if value.shape[dimension] > 1:
            yield f"as if {name} were reversed along dimension {dimension}", value.flip(dimension)
            yield (
                f"as if {name} were shifted along dimension {dimension}: an index is off by one",
                value.roll(1, dimension),
            )
            yield (
                f"as if {name} were shifted along dimension {dimension}: an index is off by one",
                value.roll(-1, dimension),
            )


def _with(one: Try, changes: dict[int | str, Any]) -> Try:
    arguments = [changes.get(i, value) for i, value in enumerate(one.arguments)]
    named = {name: changes.get(name, value) for name, value in one.named.items()}
    return Try(one.label, *arguments, **named)
