"""Observes which lines a run executes and which networks it evaluates in training mode."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from linecache import getline
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import register_module_forward_pre_hook

from readtrack.runs.trial import EarlyStopping

Line = tuple[str, int]


@contextmanager
def executed(module: ModuleType) -> Iterator[set[Line]]:
    """Collect the executed lines of the plugin's own files as (file, line)."""
    own_files = set(map(str, files(module)))
    found: set[Line] = set()
    # Lines that have not been executed; None for code outside the plugin.
    left: dict[CodeType, set[int] | None] = {}

    def in_code(frame: FrameType, event: str, _: Any) -> Callable[..., Any]:
        lines = left[frame.f_code]
        if event == "line" and lines and frame.f_lineno in lines:
            lines.discard(frame.f_lineno)
            found.add((frame.f_code.co_filename, frame.f_lineno))
            frame.f_trace_lines = bool(lines)
        return in_code

    def of_call(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        code = frame.f_code
        if code not in left:
            own = code.co_filename in own_files
            left[code] = {line for *_, line in code.co_lines() if line} if own else None
        return in_code if left[code] else None

    before = sys.gettrace()
    sys.settrace(of_call)
    try:
        yield found
    finally:
        sys.settrace(before)


def only_in(quick: set[Line], smoke: set[Line]) -> list[str]:
    """The lines that only the first run executed, such as "experiment.py:12: text". Lines with the comment
    "not at smoke" are left out.
    """
    missing = []
    for file, number in sorted(quick - smoke):
        text = Path(file).read_text(encoding="utf-8").splitlines()[number - 1].strip()
        if "# not at smoke" not in text:
            missing.append(f"{Path(file).name}:{number}: {text}")
    return missing


def reads_budget(module: ModuleType) -> list[str]:
    """The places where the plugin's files read the name of the budget, such as "experiment.py:12"."""
    return [
        f"{file.name}:{node.lineno}"
        for file in sorted(files(module))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "budget"
    ]


def files(module: ModuleType) -> set[Path]:
    """The plugin's own files; empty for a module without files."""
    if getattr(module, "__file__", None) is None:
        return set()
    main = Path(str(module.__file__))
    return set(main.parent.rglob("*.py")) if main.name == "__init__.py" else {main}


class Modes:
    """Records networks that are evaluated in training mode, with dropout or batch statistics. A call of a
    function with the comment "in evaluation, too" is left out.

    looping  number of training loops around the current code. Code without gradients in a loop is ignored,
             except for early stopping
    found    the classes of these networks
    """

    def __init__(self) -> None:
        self.looping = 0
        self.found: set[str] = set()

    @contextmanager
    def noted(self) -> Iterator[None]:
        check = EarlyStopping.check
        functions = {name: getattr(nn.functional, name) for name in ("dropout", "batch_norm")}

        def stopping(one: EarlyStopping[Any]) -> None:
            inside, self.looping = self.looping, 0
            try:
                check(one)
            finally:
                self.looping = inside

        def function(name: str) -> Callable[..., Any]:
            signature = inspect.signature(functions[name])

            def called(*args: Any, **given: Any) -> Any:
                bound = signature.bind(*args, **given)
                bound.apply_defaults()
                caller = sys._getframe(1)
                meant = "# in evaluation, too" in getline(caller.f_code.co_filename, caller.f_lineno)
                if bound.arguments["training"] and bound.arguments.get("p", 1.0) > 0 and not meant:
                    self._note(f"F.{name}")
                return functions[name](*args, **given)

            return called

        hook = register_module_forward_pre_hook(self._enter)
        EarlyStopping.check = stopping  # type: ignore[assignment, method-assign]
        for name in functions:
            setattr(nn.functional, name, function(name))
        try:
            yield
        finally:
            hook.remove()
            EarlyStopping.check = check  # type: ignore[method-assign]
            for name, original in functions.items():
                setattr(nn.functional, name, original)

    def _enter(self, module: nn.Module, _: Any) -> None:
        if module.training and _differs(module):
            self._note(type(module).__name__)

    def _note(self, what: str) -> None:
        if not torch.is_grad_enabled() and not self.looping:
            self.found.add(what)


def _differs(module: nn.Module) -> bool:
    """Whether a module's result differs in training mode. Torch's functions are recorded separately."""
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return isinstance(module, _BatchNorm) or _reads_mode(type(module))


def _reads_mode(kind: type[nn.Module]) -> bool:
    return kind.__module__.startswith("readtrack.papers") and _says_training(kind.forward)


@cache
def _says_training(forward: Callable[..., Any]) -> bool:
    source = inspect.getsource(forward)
    return "self.training" in source and not re.search(r"\b(dropout|batch_norm)\(", source)
