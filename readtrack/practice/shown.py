"""Format arguments and expected and found values in a few short lines."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_ROWS, _COLUMNS = 6, 8  # printed rows and columns of a matrix
_LISTED = 3  # printed matrices from a larger tensor
_WIDTH = 96


def number(value: float | int | bool | complex) -> str:
    """Format with four significant digits, without an unnecessary exponent."""
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, complex):
        return f"{value:.3g}"
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.4g}"
    return "0" if text in ("-0", "0") else text


def kind(value: Any) -> str:
    """`3×4 float64`, `a module Linear`, `None`."""
    if isinstance(value, Tensor):
        shape = "×".join(map(str, value.shape)) or "a scalar"
        return f"{shape} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, nn.Module):
        return f"a module {type(value).__name__}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return plain(value)


def plain(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    text = " ".join(repr(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def argument(name: str, value: Any) -> list[str]:
    """A line for the argument, followed by its numbers if it is a small tensor."""
    if isinstance(value, Tensor):
        return _beside(f"{name} {kind(value)}", tensor(value))
    if isinstance(value, list | tuple) and value and all(isinstance(part, Tensor) for part in value):
        return [line for i, part in enumerate(value) for line in argument(f"{name}[{i}]", part)]
    return [
        f"{name} {kind(value)}"
        if isinstance(value, nn.Module) or callable(value)
        else f"{name} = {plain(value)}"
    ]


def _beside(head: str, lines: list[str]) -> list[str]:
    return [f"{head}: {lines[0]}"] if len(lines) == 1 else [head, *(f"  {line}" for line in lines)]


def tensor(value: Tensor) -> list[str]:
    """The numbers as rows. A large tensor shows its first rows and columns only."""
    if value.is_meta:
        return ["(no numbers on device meta)"]
    value = value.detach().cpu()
    if value.numel() == 0:
        return ["(empty)"]
    if value.ndim <= 1:
        return _rows(value.reshape(1, -1))
    matrices = value.reshape(-1, *value.shape[-2:])
    lines = []
    for index, matrix in enumerate(matrices[:_LISTED]):
        if len(matrices) > 1:
            place = ", ".join(map(str, _unravelled(index, value.shape[:-2])))
            lines.append(f"[{place}]")
        lines += _rows(matrix)
    if len(matrices) > _LISTED:
        lines.append(f"… {len(matrices) - _LISTED} more")
    return lines


def _unravelled(index: int, shape: torch.Size) -> list[int]:
    place = []
    for size in reversed(shape):
        place.append(index % size)
        index //= size
    return place[::-1]


def _rows(matrix: Tensor) -> list[str]:
    cells = [[number(cell) for cell in row[:_COLUMNS]] for row in matrix[:_ROWS].tolist()]
    width = max(len(cell) for row in cells for cell in row)
    more = "  …" if matrix.shape[1] > _COLUMNS else ""
    lines = ["  ".join(cell.rjust(width) for cell in row) + more for row in cells]
    return lines + ["…"] * (len(matrix) > _ROWS)


def pair(expected: Any, found: Any) -> list[str]:
    """Expected and found values side by side if there is room, else one above the other."""
    if not (isinstance(expected, Tensor) and isinstance(found, Tensor)):
        return [f"expected  {_value(expected)}", f"found     {_value(found)}"]
    left, right = tensor(expected), tensor(found)
    width = max(map(len, left))
    if width + 4 + max(map(len, right)) <= _WIDTH and len(left) + len(right) > 2:
        rows = max(len(left), len(right))
        left, right = (lines + [""] * (rows - len(lines)) for lines in (left, right))
        width = max(width, len("expected"))
        return [
            f"{'expected':<{width}}    found",
            *(f"{a:<{width}}    {b}".rstrip() for a, b in zip(left, right, strict=True)),
        ]
    return [*_beside("expected", left), *_beside("found   ", right)]


def _value(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() == 1:
        return number(value.item())
    return kind(value)
