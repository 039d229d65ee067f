"""The process that parses PDFs: `python -P -m readtrack.fulltext.pdf_child`.

Each line of standard input requests one PDF: `["pages", PATH, SECONDS]` or `["count", PATH, SECONDS]`. The
answer is a JSON line for each page with text, `[NUMBER, TEXT]`, or one with the count, and a last line:
`null`, or the reason why the PDF cannot be read. The process exits at the end of its input, even in the
middle of a PDF, or after a while without requests.
"""

from __future__ import annotations

import json
import math
import os
import queue
import re
import resource
import sys
import threading
from collections.abc import Iterator
from typing import Any

from readtrack.text import plain

MEMORY = 1 << 30  # bytes of address space. macOS does not enforce it; there only the deadlines apply.
MAX_PAGES = 5_000
MAX_TEXT = 8_000_000  # characters of one PDF; a thousand pages have about 3,000,000
IDLE = 5.0  # seconds
TOO_LARGE, DAMAGED, LOCKED = "needs too much memory", "is damaged", "is locked with a password"


def main() -> None:
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    asked: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    while True:
        try:
            what, path, seconds = json.loads(asked.get(timeout=IDLE))
        except queue.Empty:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds) + 1)
        for line in answers(what, path):
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def _listen(asked: queue.Queue[bytes]) -> None:
    # pypdfium2 releases the GIL while pdfium works, so this thread notices at once when the parent has
    # exited.
    for line in sys.stdin.buffer:
        asked.put(line)
    os._exit(0)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def answers(what: str, path: str) -> Iterator[Any]:
    """The lines of an answer."""
    import pypdfium2

    try:
        with pypdfium2.PdfDocument(path) as document:
            count = min(len(document), MAX_PAGES)
            if what == "count":
                yield count
            else:
                yield from _pages(document, count)
        yield None if count else DAMAGED
    except MemoryError:
        yield TOO_LARGE
    except pypdfium2.PdfiumError as error:
        yield LOCKED if "password" in str(error).casefold() else DAMAGED
    except (OSError, ValueError):
        yield DAMAGED


def _pages(document: Any, count: int) -> Iterator[tuple[int, str]]:
    import pypdfium2

    room = MAX_TEXT
    for number in range(count):
        try:
            page = document[number]
            try:
                text = page.get_textpage().get_text_bounded()[:room]
            finally:
                page.close()  # also closes its text; open pages stay in memory
        except pypdfium2.PdfiumError:  # a damaged page among good ones
            continue
        room -= len(text)
        if words := joined(text):
            yield number + 1, words
        if room <= 0:
            return


def joined(text: str) -> str:
    """The text on one line, with words hyphenated at line ends rejoined."""
    whole = re.sub(r"(\w)[-\u00ad\ufffe\x02]\r?\n(\w)", r"\1\2", text).replace("\ufffe", "")
    return " ".join(plain(whole).split())


if __name__ == "__main__":
    main()
