"""Load a single plugin. This runs untrusted code, so only child processes do it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from inspect import signature
from types import ModuleType

import pluggy

from readtrack import papers
from readtrack.claims import Claim
from readtrack.errors import ReadtrackError
from readtrack.home import Home
from readtrack.plugins import hookspecs
from readtrack.plugins.find import NAMESPACE, find, search_path
from readtrack.text import one_line

HOOKS = ("implementation", "experiment", "benchmark")


class PluginError(ReadtrackError):
    """A plugin cannot be used: one line with the reason, and the location (`file:line`, or "")."""

    exit_code = 1

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.where = where


def load(name: str, home: Home) -> pluggy.PluginManager:
    """Import `readtrack.papers.<name>` and register its hooks, in a child process only.

    Raises ReadtrackError if there is no such plugin, PluginError with file, line and reason if it is broken.
    """
    refs = find(home)
    if name not in refs:
        close = _nearest(name, refs)
        raise ReadtrackError(
            f"There is no plugin {name!r}" + (f"; did you mean {close!r}?" if close else ".")
        )
    papers.__path__[:] = search_path(home)
    try:
        module = importlib.import_module(f"{NAMESPACE}.{name}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _import_error(error) from error
    manager = pluggy.PluginManager("readtrack")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _hook_error(manager, module, error) from error
    for hook in HOOKS:
        if not getattr(manager.hook, hook).get_hookimpls():
            raise _missing_hook(module, hook)
    return manager


def claims(name: str) -> list[Claim]:
    """The claims in the modules of a loaded plugin, in the order in which they were written."""
    from readtrack.claims import Claim

    own = f"{NAMESPACE}.{name}"
    modules = [m for n, m in sys.modules.items() if n == own or n.startswith(f"{own}.")]
    found = {id(v): v for m in reversed(modules) for v in vars(m).values() if isinstance(v, Claim)}
    return list(found.values())


def where(error: BaseException) -> str:
    """`file:line` of the innermost plugin frame in the error's traceback, or ""."""
    place = ""
    step = error.__traceback__
    while step is not None:
        if str(step.tb_frame.f_globals.get("__name__", "")).startswith(f"{NAMESPACE}."):
            place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    return place


def _import_error(error: BaseException) -> PluginError:
    if isinstance(error, SyntaxError) and error.filename:
        return PluginError(f"syntax error: {error.msg}", f"{error.filename}:{error.lineno}")
    place = where(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package, _, paper = error.name.rpartition(".")
        if package == NAMESPACE:
            return PluginError(f"needs the paper {paper!r}, which has no plugin here", place)
        name = error.name.partition(".")[0]
        return PluginError(f"needs the package {name!r}, which is not installed", place)
    if isinstance(error, SystemExit):
        return PluginError(f"called sys.exit({error.code!r}) while it was imported", place)
    return PluginError(f"{type(error).__name__}: {one_line(str(error))[:500]}", place)


def _hook_error(manager: pluggy.PluginManager, module: ModuleType, error: Exception) -> PluginError:
    for hook in vars(manager.hook).values():
        name = getattr(hook, "name", None)
        if name is None or hook.has_spec():
            continue
        close = _nearest(name, HOOKS)
        hint = f"; did you mean {close!r}?" if close else f"; the hooks are {', '.join(HOOKS)}"
        return PluginError(f"unknown hook {name!r}{hint}", _place(module, name))
    for name in HOOKS:
        wanted = ", ".join(signature(getattr(hookspecs, name)).parameters)
        function = getattr(module, name, None)
        if callable(function) and not set(signature(function).parameters) <= {wanted}:
            return PluginError(f"the hook must be {name}({wanted})", _place(module, name))
    return PluginError(one_line(str(error)), str(module.__file__))


def _missing_hook(module: ModuleType, hook: str) -> PluginError:
    if callable(getattr(module, hook, None)):
        return PluginError(f"{hook}() is not marked with @hookimpl", _place(module, hook))
    functions = [name for name, value in vars(module).items() if callable(value)]
    close = _nearest(hook, functions)
    hint = f"; did you mean {close!r}?" if close else ""
    return PluginError(f"has no hook {hook!r}{hint}", str(module.__file__))


def _nearest(name: str, names: Iterable[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.7)), None)


def _place(module: ModuleType, name: str) -> str:
    code = getattr(getattr(module, name, None), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else str(module.__file__)
