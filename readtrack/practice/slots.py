"""Replace a paper's functions with the reader's wherever the paper calls them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Slot:
    """A paper's function whose calls are redirected.

    The function object stays the same, so calls through imports and tables are redirected, too. It calls
    `replacement` if there is one, else the original.

    outer  the function with its decorators, such as torch.no_grad
    """

    def __init__(self, owner: Any, name: str) -> None:
        found = _plain(inspect.getattr_static(owner, name))
        self.original = types.FunctionType(
            found.__code__, found.__globals__, found.__name__, found.__defaults__, found.__closure__
        )
        self.original.__kwdefaults__ = found.__kwdefaults__
        self.original.__annotations__ = found.__annotations__
        self.signature = inspect.signature(self.original)
        self.cell = types.CellType(owner) if inspect.isclass(owner) else None
        self.replacement: Callable[..., Any] | None = None
        self._function = found
        self._divert(found)
        self.outer = _unchecked(inspect.getattr_static(owner, name))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return (self.replacement or self.original)(*arguments, **named)

    @contextmanager
    def replaced(self, function: Callable[..., Any] | None) -> Iterator[None]:
        """Use `function` instead within the block, or the original if it is None."""
        before, self.replacement = self.replacement, function
        try:
            yield
        finally:
            self.replacement = before

    def close(self) -> None:
        """Stop redirecting calls."""
        self._function.__code__ = self.original.__code__

    def _divert(self, function: types.FunctionType) -> None:
        name = f"_slot_{id(self)}"
        function.__globals__[name] = self
        model = _PASSING[len(function.__closure__ or ())].__code__
        names = tuple(name if one == "SLOT" else one for one in model.co_names)
        function.__code__ = model.replace(
            co_names=names, co_name=function.__name__, co_filename=function.__code__.co_filename
        )


def _passing_with(cells: int) -> types.FunctionType:
    """A function with `cells` free variables that passes its arguments to the global SLOT."""
    if cells == 0:

        def passes(*arguments: Any, **named: Any) -> Any:
            return SLOT(*arguments, **named)  # type: ignore[name-defined] # noqa: F821

    else:
        cell = None

        def passes(*arguments: Any, **named: Any) -> Any:
            _ = cell
            return SLOT(*arguments, **named)  # type: ignore[name-defined] # noqa: F821

    assert isinstance(passes, types.FunctionType)
    return passes


_PASSING = {cells: _passing_with(cells) for cells in (0, 1)}


def fitted(function: Callable[..., Any], slot: Slot) -> Callable[..., Any]:
    """A method from the reader's class, bound to the paper's class so that `super()` finds the right base."""
    plain = _plain(function)
    if slot.cell is None or "__class__" not in plain.__code__.co_freevars:
        return plain
    cells = tuple(
        slot.cell if name == "__class__" else cell
        for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True)
    )
    made = types.FunctionType(
        plain.__code__, plain.__globals__, plain.__name__, plain.__defaults__, closure=cells
    )
    made.__kwdefaults__ = plain.__kwdefaults__
    return made


def _unchecked(found: Any) -> Callable[..., Any]:
    """The function without jaxtyping's type checks, which would raise before the judge can compare."""
    found = getattr(found, "__func__", found)
    while hasattr(found, "__wrapped__") and any(name in _file(found) for name in ("jaxtyping", "beartype")):
        found = found.__wrapped__
    return found if inspect.isfunction(found) else _plain(found)


def _file(function: Any) -> str:
    return str(getattr(getattr(function, "__code__", None), "co_filename", ""))


def _plain(found: Any) -> types.FunctionType:
    """The function inside a method, a property or a decorator that uses functools.wraps."""
    for name in ("__func__", "fget", "func"):
        found = getattr(found, name, found) if not inspect.isfunction(found) else found
    found = inspect.unwrap(found)
    if not isinstance(found, types.FunctionType):
        raise TypeError(f"{found!r} is not a Python function")
    return found
