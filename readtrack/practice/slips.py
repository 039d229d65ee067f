"""Hints from mutants: a single mistake that makes the paper's function return the reader's result."""

from __future__ import annotations
import __future__

import ast
import inspect
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from readtrack.practice.asif import same
from readtrack.practice.exercise import Try
from readtrack.practice.mutants import functions
from readtrack.practice.parts import Parts
from readtrack.practice.slots import Slot

_SECONDS = 4.0  # CPU seconds for all mutants of a function


class Slips:
    """A function's mutants with their results, created when first needed and kept."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._made: list[_Slip] = []

    def explain(self, call: Callable[[Try], Parts], found: Sequence[tuple[Try, Parts]]) -> str:
        """A sentence, or "" if no single mistake explains the results on all these inputs.

        call  calls the target on an input, with the mutated function in place of the paper's
        """
        end = time.process_time() + _SECONDS
        for one in self._all():
            if time.process_time() > end:
                break
            with self._slot.replaced(one.function):
                if all(one.explains(call, *pair) for pair in found):
                    return f"{one.kind}; with this one mistake the paper's code returns your result"
        return ""

    def _all(self) -> Iterator[_Slip]:
        yield from self._made
        for kind, function in _mistaken(self._slot, len(self._made)):
            self._made.append(_Slip(kind, function))
            yield self._made[-1]


class _Slip:
    def __init__(self, kind: str, function: Callable[..., Any]) -> None:
        self.kind, self.function = kind, function
        self._results: dict[Try, Parts | None] = {}  # None where the function does not run with this mistake

    def explains(self, call: Callable[[Try], Parts], one: Try, parts: Parts) -> bool:
        if one not in self._results:
            try:
                self._results[one] = call(one)
            except Exception:  # a function with a mistake in it may raise anything
                self._results[one] = None
        own = self._results[one]
        return own is not None and same(own, parts)


def _mistaken(slot: Slot, start: int) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The paper's function with each mistake in turn, from number `start` on.

    Excludes closures, and functions with a while loop, because a mistake could make it endless.
    """
    code = slot.original.__code__
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(slot.original)))
    except (OSError, SyntaxError):
        return
    function = tree.body[0]
    if code.co_freevars or not isinstance(function, ast.FunctionDef):
        return
    if any(isinstance(node, ast.While) for node in ast.walk(function)):
        return
    function.decorator_list.clear()
    for kind, changed in islice(functions(function), start, None):
        module = ast.Module([changed], [])
        made = compile(
            module, code.co_filename, "exec", __future__.annotations.compiler_flag, dont_inherit=True
        )
        names = dict(slot.original.__globals__)
        exec(made, names)  # noqa: S102 - the paper's own code
        yield kind, names[function.name]
