"""Prints the output of commands: safe in any locale and width, with colours only on a terminal."""

from __future__ import annotations

import codecs
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from readtrack.present import marks
from readtrack.text import json_safe, one_line, plain

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan"]
_TONES: dict[marks.Tone, Style] = {"good": "green", "doubtful": "yellow", "bad": "red", "quiet": "dim"}
_NO_WIDTH = ("Mn", "Me", "Cf")  # Unicode categories
_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

# Matches only the sequences that `paint` writes. The group makes `split` keep them.
_PAINT = re.compile(r"(\x1b\[(?:0|(?:[12]|3[1236])(?:;(?:[12]|3[1236]))*)m)")


def prepare() -> None:
    """Make stdout and stderr accept every character; those missing from the locale's encoding are spelled in
    ASCII.
    """
    codecs.register_error("readtrack", _spell_in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="readtrack")


def _spell_in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    from readtrack.present.plain_ascii import spelled

    return "".join(map(spelled, error.object[error.start : error.end])), error.end


def on_terminal() -> bool:
    """Whether stdout is a terminal that can redraw."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def colours() -> bool:
    return on_terminal() and not os.environ.get("NO_COLOR")


def width() -> int | None:
    """The number of columns of the terminal; None in a pipe."""
    return max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def paint(text: str, *styles: Style) -> str:
    """`text` with styles on a terminal, unchanged in a pipe."""
    if not text or not styles or not colours():
        return text
    return f"\x1b[{';'.join(_SGR[style] for style in styles)}m{text}\x1b[0m"


def verdict(word: str, *, control: bool = False) -> str:
    """A verdict such as `✓ held`, padded and coloured. In a control run, verdicts are not coloured as
    good or bad.
    """
    sign, tone = marks.verdict("not judged" if control else word)
    return paint(f"{sign} {word:<14}", _TONES[tone])


def print_out(line: str = "") -> None:
    """Print a line of data on stdout. Control sequences are removed, except the colours of `paint`."""
    pieces = _PAINT.split(line) if colours() else [line]
    sys.stdout.write("".join(p if _PAINT.fullmatch(p) else plain(p) for p in pieces) + "\n")


def say_exactly(text: str) -> None:
    """Print data unchanged into a pipe or file; on a terminal, without control sequences."""
    if sys.stdout.isatty():
        sys.stdout.write(plain(text))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


def print_err(line: str) -> None:
    """Print a message line on stderr."""
    sys.stdout.flush()
    sys.stderr.write(plain(line) + "\n")
    sys.stderr.flush()


def warn(problem: str) -> None:
    """Print a warning: one line on stderr."""
    print_err(f"readtrack: {one_line(problem)}")


def flush() -> None:
    sys.stdout.flush()


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print a JSON document on stdout. Characters that stdout cannot encode become JSON escapes."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json_safe(json.dumps(document, ensure_ascii=not unicode, indent=indent)) + "\n")


def cells(text: str) -> int:
    """The number of terminal columns that `text` takes."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    # Combining marks and joiners take no column. The package wcwidth is more exact, but takes 40 ms to
    # import.
    return sum(0 if category(c) in _NO_WIDTH else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - cells(text))


def clip(text: str, columns: int | None) -> str:
    """`text` cut to `columns`, with an ellipsis if it was cut."""
    if columns is None or cells(text) <= columns:
        return text
    kept = ""
    for character in text:
        if cells(kept + character) >= columns:
            break
        kept += character
    return kept.rstrip() + "…"


def wrap(text: str, columns: int | None) -> list[str]:
    """`text` wrapped to lines of at most `columns`; longer words are broken."""
    if columns is None or cells(text) <= columns:
        return [text]
    lines, line = [], ""
    for word in text.split():
        while word:
            joined = f"{line} {word}" if line else word
            if cells(joined) <= columns:
                line, word = joined, ""
            elif line:
                lines.append(line)
                line = ""
            else:
                head = word
                while cells(head) > columns:
                    head = head[:-1]
                lines.append(head)
                word = word[len(head) :]
    return [*lines, line] if line else lines


def table(rows: Sequence[Sequence[str]], *, head: Sequence[str]) -> None:
    """Print aligned columns, two spaces apart. On a terminal, the last column is cut to fit."""
    total = width()
    columns = [max(map(cells, column)) for column in zip(head, *rows, strict=True)]
    room = None if total is None else max(8, total - sum(columns[:-1]) - 2 * len(columns[:-1]))
    for index, row in enumerate([head, *rows]):
        texts = [*map(pad, row[:-1], columns[:-1]), clip(row[-1], room)]
        texts = [paint(text, "dim") for text in texts] if index == 0 else texts
        print_out("  ".join(texts).rstrip())


def paragraphs(text: str, *, indent: str = "") -> Iterable[str]:
    """The lines of `text`, which comes from outside, made safe and wrapped to the terminal."""
    room = width()
    for line in plain(text).expandtabs(4).splitlines():
        for piece in wrap(line, None if room is None else room - len(indent)):
            yield (indent + piece).rstrip()
