"""Make text from outside (arXiv, plugins, logs) safe to print; format times, sizes and numbers."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from typing import Any

# CSI and OSC sequences, then any other control character, including C1 and bidirectional overrides.
_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[PX^_].*?(?:\x1b\\|$)"
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

_MARKDOWN = re.compile(r"([\\|<*_`\[\]~$&])")


def plain(text: str) -> str:
    """`text` without escape sequences and control characters, except for newlines and tabs."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("", _SEQUENCES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))


def one_line(text: str) -> str:
    """`plain`, with every run of white space collapsed to one space."""
    return " ".join(plain(text).split())


def in_markdown(text: str) -> str:
    """`text` on one line, with Markdown's special characters escaped."""
    return _MARKDOWN.sub(r"\\\1", one_line(text)).strip()


def json_safe(document: str) -> str:
    """A JSON text with control characters replaced by JSON escapes."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def clean(value: Any) -> Any:
    """A JSON document with `plain` applied to every text in it, including keys."""
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else plain(value)
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return {clean(key): clean(item) for key, item in value.items()} if isinstance(value, dict) else value


def format_duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_nanoseconds(value: float) -> str:
    """A short time with three digits: `950 ns`, `31.2 µs`, `4.05 ms`, `1.2 s`."""
    for unit, factor in (("ns", 1.0), ("µs", 1e3), ("ms", 1e6)):
        if value < 999.5 * factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e9:.3g} s"


def format_bytes(count: float) -> str:
    """Bytes in binary units: `512 B`, `4.6 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def signal_name(number: int) -> str:
    """`SIGSEGV`, or `signal 35` for a signal without a name, such as most real-time signals."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def format_number(value: float) -> str:
    """Four significant digits, without trailing zeros or an unnecessary exponent; large integers in full.

    Counts appear as in a paper's table: `151,277,313`. The negative zero appears as `0`.
    """
    whole = 1e4 <= abs(value) < 1e15 and value % 1 == 0
    return f"{value:,.0f}" if whole else f"{value:z.4g}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 run`, `3 runs`; `plural` for irregular nouns."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def quoted(text: str) -> str:
    """`'text'` for a message: on one line, at most 60 characters."""
    text = one_line(text)
    return f"'{text if len(text) <= 60 else text[:59] + '…'}'"


def shortened(text: str, most: int) -> str:
    """`text` on one line, cut to `most` characters with an ellipsis."""
    text = one_line(text)
    return text if len(text) <= most else text[: most - 1].rstrip(" ,;") + "…"


def folded(text: str) -> str:
    """`text` without case and accents, so that "Ré" equals "re"."""
    if text.isascii():
        return text.lower()
    from unicodedata import combining, normalize

    return "".join(c for c in normalize("NFKD", text.casefold()) if not combining(c))


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean 'x'?`, or `otherwise` if no known name is similar."""
    from difflib import get_close_matches

    close = get_close_matches(name[:80], known, n=1, cutoff=0.6)
    return f"did you mean {quoted(close[0])}?" if close else otherwise
