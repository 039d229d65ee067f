"""PDFs as text, by pypdfium2: pages, and the text of each. One at a time: pdfium is not made for threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from readtrack.text import plain

_LOCK = threading.Lock()  # pdfium's own rule, for the whole process


def page_count(path: Path) -> int:
    """0 for a file that is no PDF or is damaged."""
    with _LOCK:
        document = _open(path)
        if document is None:
            return 0
        try:
            return len(document)
        finally:
            document.close()


def pages(path: Path) -> Iterator[tuple[int, str]]:
    """The text of each page that has some, with its number from 1; nothing for what is no PDF."""
    import pypdfium2

    with _LOCK:
        document = _open(path)
        if document is None:
            return
        try:
            for number in range(len(document)):
                try:
                    text = document[number].get_textpage().get_text_bounded()
                except pypdfium2.PdfiumError:  # a damaged page among good ones
                    continue
                words = joined(text)
                if words:
                    yield number + 1, words
        finally:
            document.close()


def joined(text: str) -> str:
    """On one line, words that were broken at the end of a line put together again."""
    import re

    whole = re.sub(r"(\w)[-\u00ad\ufffe\x02]\r?\n(\w)", r"\1\2", text).replace("\ufffe", "")
    return " ".join(plain(whole).split())


def _open(path: Path) -> Any:
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(path)
    except (pypdfium2.PdfiumError, OSError, ValueError):
        return None
