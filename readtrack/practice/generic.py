"""Inputs generated from a signature's jaxtyping shapes, with small odd sizes."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from readtrack.practice.exercise import Draw, Try

_SIZES = ((3, 4, 5, 2, 6), (1, 2, 1, 3, 1))
_ARRAYS = {
    "Float": torch.float64,
    "Shaped": torch.float64,
    "Num": torch.float64,
    "Int": torch.int64,
    "Int64": torch.int64,
    "Bool": torch.bool,
}


class NoShapesError(Exception):
    """The signature contains too little information, so the exercise needs `tries`."""


def tries_by_signature(signature: inspect.Signature, draw: Draw) -> Iterator[Try]:
    """Inputs with odd sizes, then with the smallest sizes, then with each default-off flag switched on."""
    yield _drawn(signature, draw, "plain", _SIZES[0], {})
    yield _drawn(signature, draw, "smallest sizes", _SIZES[1], {})
    for name, parameter in signature.parameters.items():
        if parameter.default is False:
            yield _drawn(signature, draw, name, _SIZES[0], {name: True})
        elif parameter.default is None and "Bool" in str(parameter.annotation):
            yield _drawn(signature, draw, f"a {name}", _SIZES[0], {name: parameter.annotation})


def _drawn(
    signature: inspect.Signature, draw: Draw, label: str, sizes: tuple[int, ...], more: dict[str, Any]
) -> Try:
    named: dict[str, int] = {}
    arguments: list[Any] = []
    keywords: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if name in more:
            given = more[name]
            value = given if isinstance(given, bool) else _value(name, given, draw, sizes, named)
        elif parameter.default is not parameter.empty:
            continue
        else:
            value = _value(name, parameter.annotation, draw, sizes, named)
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.default is not parameter.empty:
            keywords[name] = value
        else:
            arguments.append(value)
    return Try(label, *arguments, **keywords)


def _value(name: str, annotation: Any, draw: Draw, sizes: tuple[int, ...], named: dict[str, int]) -> Any:
    for part in typing.get_args(annotation) or (annotation,):
        dims = getattr(part, "dim_str", None)
        if dims is not None:
            return _tensor(part, dims, draw, sizes, named)
    if annotation is Tensor:
        return draw(*sizes[:2])
    if annotation is float:
        return 0.3
    if annotation is int:
        return named.get(name, 2)
    if annotation is bool:
        return True
    raise NoShapesError(f"{name}: {annotation} does not specify a shape")


def _tensor(annotation: Any, dims: str, draw: Draw, sizes: tuple[int, ...], named: dict[str, int]) -> Tensor:
    shape: list[int] = []
    for dim in dims.split():
        dim = dim.lstrip("#?_") if dim not in ("_",) else dim
        if dim.startswith("*") or dim == "...":
            shape.append(named.setdefault(dim.lstrip("*#"), 2 if sizes[0] > 1 else 1))
        elif dim.isdecimal():
            shape.append(int(dim))
        elif dim.isidentifier():
            shape.append(
                named.setdefault(dim, sizes[sum(not key.startswith("*") for key in named) % len(sizes)])
            )
        else:
            shape.append(_calculated(dim, sizes, named))
    kind = next((name for name in _ARRAYS if annotation.__name__.startswith(f"{name}[")), "Float")
    if kind == "Bool":
        return draw.mask(*shape)
    return draw.below(3, *shape) if kind.startswith("Int") else draw(*shape)


def _calculated(dim: str, sizes: tuple[int, ...], named: dict[str, int]) -> int:
    """Evaluate `4*hidden`, `keys-1`."""
    known = re.sub(
        r"[a-z_]\w*", lambda found: str(named.setdefault(found[0], sizes[len(named) % len(sizes)])), dim
    )
    if not re.fullmatch(r"[\d+*/() -]+", known):
        raise NoShapesError(f"the size {dim} cannot be calculated")
    return int(eval(known, {"__builtins__": {}}))  # noqa: S307 - digits and operators only
