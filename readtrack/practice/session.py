"""The reader's file next to the loaded plugin: judge exercises, or use its functions in the paper.

For a child process only, because it runs untrusted code and changes the plugin's functions.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import linecache
import os
import resource
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from readtrack.errors import ReadtrackError
from readtrack.plugins.find import NAMESPACE
from readtrack.practice.deadline import SlowError, deadline
from readtrack.practice.exercise import Exercise
from readtrack.practice.judge import Known, PaperError, Verdict, is_of_answer, judge, own_error
from readtrack.practice.sheet import Sheet, definition
from readtrack.practice.skeleton import is_empty
from readtrack.practice.slots import Slot, fitted
from readtrack.practice.trials import Target
from readtrack.text import one_line

MODULE = f"{NAMESPACE}._practice"  # the module name of the reader's file
SECONDS = 8.0  # CPU seconds per exercise
_WAIT = 3  # wall time limit as a multiple of SECONDS, for code that waits
MEMORY = 4 << 30  # bytes that the process may allocate after the start of judging
_LINES = 3  # maximum length of an error's message


class Session:
    """Loads the reader's file. Raises ReadtrackError with the line number if it cannot be loaded.

    file      the file to judge; `name` is its name in messages and tracebacks
    declared  the plugin's exercises
    """

    def __init__(self, found: Sequence[Sheet], file: Path, name: str) -> None:
        self._sheets = {sheet.name: sheet for sheet in found}
        self._declared = {exercise.name: exercise for exercise in declared(found[0].paper)}
        self._file, self._name = file, name
        self._slots: dict[str, Slot] = {}
        self._known: dict[str, Known] = {}
        self.reload()

    def reload(self) -> None:
        """Read the file again. The paper's results are kept."""
        source = self._file.read_text(encoding="utf-8")
        linecache.cache[self._name] = (len(source), None, source.splitlines(keepends=True), self._name)
        self._tree, self._module = _loaded(source, self._name)
        self._lend()

    def verdicts(self, names: Sequence[str]) -> Iterator[Verdict]:
        """Judge the exercises in this order. Errors in the reader's code become verdicts, too."""
        with _memory_limit(MEMORY), _no_forks():
            for name in names:
                yield self._verdict(name)

    def take_place(self, names: Sequence[str]) -> Places:
        """Replace the paper's functions with the reader's for these exercises."""
        return Places({name: (self._slot(name), self._answer(name)) for name in names})

    def close(self) -> None:
        """Restore the paper's functions."""
        for slot in self._slots.values():
            slot.close()

    def _lend(self) -> None:
        """Use the paper's functions where the reader has written none, so any exercise can come first."""
        for sheet in self._sheets.values():
            node = definition(self._tree, sheet.qualname)
            if node is None or not is_empty(node):
                continue
            outer, _, attribute = sheet.qualname.rpartition(".")
            owner, _ = _owner(sheet)
            theirs = reduce(getattr, outer.split("."), self._module) if outer else self._module
            setattr(theirs, attribute, inspect.getattr_static(owner, attribute))

    def _verdict(self, name: str) -> Verdict:
        sheet, exercise = self._sheets[name], self._declared[name]
        node = definition(self._tree, sheet.qualname)
        if node is None:
            said = f"your file has no {sheet.qualname}: `readtrack practice {sheet.paper} {name!r} --reset`"
            return Verdict(name=name, outcome="empty", hint=said)
        if is_empty(node):
            return Verdict(name=name, outcome="empty", line=node.lineno)
        try:
            with deadline(SECONDS, _WAIT * SECONDS):
                answer, target = self._answer(name), self._target(name)
                if name not in self._known:
                    self._known[name] = Known(exercise, target)
                verdict = judge(exercise, target, answer, self._known[name])
        except SlowError as error:
            line = self._line(error) or node.lineno
            report = (f"it has not returned after {SECONDS:.0f} s", *self._code(line))
            return Verdict(name=name, outcome="slow", line=line, report=report, hint="a loop does not end")
        except SystemExit as error:
            return self._failed(name, error, node.lineno)
        except PaperError as error:
            raise ReadtrackError(
                f"{sheet.paper}, exercise {name}: the paper's own code fails on {one_line(str(error))}. This "
                "is a mistake in the plugin, not yours. --skip leaves the exercise out."
            ) from error
        except Exception as error:
            if not (self._line(error) or is_of_answer(error) or isinstance(error, MemoryError)):
                return _own_fault(name, error)
            return self._failed(name, error, node.lineno)
        return _at(verdict, node.lineno)

    def _failed(self, name: str, error: BaseException, first: int) -> Verdict:
        """The error's message with the line in the reader's code, or the function's first line."""
        line = self._line(error)
        told = str(error)
        if isinstance(error, MemoryError) or "can't allocate memory" in told:
            report = [f"it asked for more memory than the {MEMORY >> 30} GiB that an exercise may use"]
        elif isinstance(error, SystemExit):
            report = ["it exits the program (sys.exit, exit or quit)"]
        elif isinstance(error, RecursionError):
            report = [
                "it calls itself without end, perhaps through the paper's function, which now calls yours"
            ]
        elif isinstance(error, NotImplementedError) and not told:
            report = ["it calls a function that is not written yet"]
        else:
            lines = [one_line(text) for text in told.splitlines() if text.strip()][:_LINES]
            report = [f"{type(error).__name__}: {lines[0] if lines else ''}", *lines[1:]]
        return Verdict(
            name=name, outcome="failed", line=line or first, report=(*report, *self._code(line or first))
        )

    def _line(self, error: BaseException) -> int:
        """The innermost line of the reader's code in the traceback; 0 if there is none."""
        line, step = 0, error.__traceback__
        while step is not None:
            if step.tb_frame.f_code.co_filename == self._name:
                line = step.tb_lineno
            step = step.tb_next
        return line

    def _code(self, line: int) -> tuple[str, ...]:
        text = linecache.getline(self._name, line).strip()
        return (f"line {line}: {text}",) if text else ()

    def _target(self, name: str) -> Target:
        slot, through = self._slot(name), self._declared[name].through
        if not through:
            return Target(slot, slot.outer)
        return Target(slot, _found(_package(self._sheets[name]), through))

    def _slot(self, name: str) -> Slot:
        if name not in self._slots:
            sheet = self._sheets[name]
            owner, attribute = _owner(sheet)
            self._slots[name] = Slot(owner, attribute)
        return self._slots[name]

    def _answer(self, name: str) -> Callable[..., Any]:
        """The reader's function. A method is bound to the paper's class."""
        sheet = self._sheets[name]
        outer, _, attribute = sheet.qualname.rpartition(".")
        if not outer:
            return fitted(vars(self._module)[attribute], self._slot(name))
        theirs = reduce(getattr, outer.split("."), self._module)
        owner, _ = _owner(sheet)
        for other, value in vars(theirs).items():
            if not hasattr(owner, other):  # a method that the reader has added
                setattr(owner, other, value)
        return fitted(vars(theirs)[attribute], self._slot(name))


class Places:
    """Slots with the reader's functions, which can be switched on and off."""

    def __init__(self, pairs: Mapping[str, tuple[Slot, Callable[..., Any]]]) -> None:
        self._pairs = list(pairs.values())

    def switch(self, on: bool) -> None:
        for slot, answer in self._pairs:
            slot.replacement = answer if on else None


def declared(paper: str) -> tuple[Exercise, ...]:
    """The exercises that a loaded plugin declares."""
    module = sys.modules[f"{NAMESPACE}.{paper}"]
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{NAMESPACE}.{paper}.exercises")
    return tuple(module.EXERCISES)


def _package(sheet: Sheet) -> ModuleType:
    return importlib.import_module(f"{NAMESPACE}.{sheet.paper}")


def _found(package: ModuleType, path: str) -> Callable[..., Any]:
    """The object `model.unroll_fast` in the plugin or one of its modules."""
    module, _, rest = path.partition(".")
    if rest and hasattr(package, "__path__") and importlib.util.find_spec(f"{package.__name__}.{module}"):
        package, path = importlib.import_module(f"{package.__name__}.{module}"), rest
    found = reduce(getattr, path.split("."), package)
    assert callable(found)
    return found


def _owner(sheet: Sheet) -> tuple[Any, str]:
    """The module or class that contains the function, and its name there."""
    outer, _, attribute = sheet.qualname.rpartition(".")
    module = importlib.import_module(sheet.dotted)
    return (reduce(getattr, outer.split("."), module) if outer else module), attribute


def _loaded(source: str, name: str) -> tuple[ast.Module, ModuleType]:
    module = types.ModuleType(MODULE)
    module.__file__ = name
    sys.modules[MODULE] = module
    try:
        tree = ast.parse(source, name)
        with deadline(SECONDS, _WAIT * SECONDS):
            exec(compile(tree, name, "exec"), vars(module))  # noqa: S102 - the reader's own code
    except SyntaxError as error:
        raise ReadtrackError(f"{name}:{error.lineno}: {error.msg}") from error
    except SlowError as error:
        raise ReadtrackError(f"{name}: importing it takes longer than {SECONDS:.0f} s") from error
    except (Exception, SystemExit) as error:
        line = _last_line(error, name)
        raise ReadtrackError(f"{name}:{line}: {type(error).__name__}: {one_line(str(error))}") from error
    return tree, module


def _last_line(error: BaseException, name: str) -> int:
    line, step = 1, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == name:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _own_fault(name: str, error: Exception) -> Verdict:
    report = (f"readtrack itself failed during the comparison: {own_error(error)}",)
    said = (
        "your code is not at fault. Please report this line and attach your file. Continue with the next "
        "exercise"
    )
    return Verdict(name=name, outcome="failed", report=report, hint=said)


def _at(verdict: Verdict, line: int) -> Verdict:
    from dataclasses import replace

    return verdict if verdict.line or verdict.outcome == "passed" else replace(verdict, line=line)


@contextmanager
def _no_forks() -> Iterator[None]:
    """Forbid forks: a copy of this process would go on judging and write duplicate verdicts."""

    def refuse() -> NoReturn:
        raise RuntimeError("an exercise may not copy the process (os.fork)")

    names = [name for name in ("fork", "forkpty") if hasattr(os, name)]
    before = {name: getattr(os, name) for name in names}
    for name in names:
        setattr(os, name, refuse)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(os, name, function)


@contextmanager
def _memory_limit(more: int) -> Iterator[None]:
    import psutil

    before = resource.getrlimit(resource.RLIMIT_DATA)
    used = psutil.Process().memory_info().vms
    limit = min(one for one in (used + more, before[1]) if one != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
