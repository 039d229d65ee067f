"""Describe an exception: which memory ran out, its message, the plugin's part of its traceback."""

from __future__ import annotations

import errno
import traceback
from typing import Any, Literal

from readtrack.plugins.find import NAMESPACE
from readtrack.text import one_line

_TRACEBACK_LINES = 30


def memory_kind(error: BaseException) -> Literal["device", "host"] | None:
    """Which memory ran out, or None for another error."""
    step: BaseException | None = error
    while step is not None:
        if isinstance(step, MemoryError) or (isinstance(step, OSError) and step.errno == errno.ENOMEM):
            return "host"
        text = _text(step)
        if type(step).__name__ == "OutOfMemoryError" or "MPS backend out of memory" in text:
            return "device"
        if isinstance(step, RuntimeError):
            if "CUDA error: out of memory" in text or "CUBLAS_STATUS_ALLOC_FAILED" in text:
                return "device"
            if "can't allocate memory" in text or "std::bad_alloc" in text:
                return "host"
        step = step.__cause__
    return None


def message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the plugin called sys.exit({error.code!r})"
    return one_line(_text(error))[:2000]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"(its message cannot be shown: {type(problem).__name__})"


def short_traceback(error: BaseException) -> str:
    """The last `_TRACEBACK_LINES` lines of the traceback, which starts at the plugin's first frame."""
    step = error.__traceback__
    while step is not None and not _is_paper(step.tb_frame.f_globals):
        step = step.tb_next
    try:
        lines = traceback.format_exception(type(error), error, step or error.__traceback__)
    except Exception as problem:
        return f"{type(error).__name__} (its traceback cannot be shown: {type(problem).__name__})"
    return "\n".join("".join(lines).splitlines()[-_TRACEBACK_LINES:])


def _is_paper(names: dict[str, Any]) -> bool:
    return str(names.get("__name__", "")).startswith(f"{NAMESPACE}.")
