"""Hand-written PDFs: harmless ones, and small ones that cost a parser minutes or gigabytes.

`python tests/fulltext/hostile_pdfs.py FOLDER` writes all of them.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from pathlib import Path

FONT = b"<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"


def document(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalogue."""
    data, places = b"%PDF-1.5\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    xref = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    return data + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, xref)


def stream(content: bytes, entries: bytes = b"") -> bytes:
    packed = zlib.compress(content, 9)
    head = b"<< %s /Filter /FlateDecode /Length %d >>" % (entries, len(packed))
    return head + b"\nstream\n" + packed + b"\nendstream"


def make_pdf(*pages: str) -> bytes:
    """A PDF with one line of text per page."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * number) for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
    ]
    for text in pages:
        objects.append(stream(b"BT /F1 12 Tf 40 700 Td (%s) Tj ET" % text.encode("ascii")))
        objects.append(_page(b"/Contents %d 0 R /Resources %s" % (len(objects), FONT)))
    return document(*objects)


def _page(entries: bytes) -> bytes:
    return b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] %s >>" % entries


def _one_page(entries: bytes, *objects: bytes) -> bytes:
    """A PDF with one page, whose further `objects` are numbered from 4."""
    return document(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        _page(entries),
        *objects,
    )


def form_laughs(levels: int = 9) -> bytes:
    """Each form draws the next form ten times."""
    content = b"/X Do " * 10
    forms = [
        stream(
            content,
            b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X %d 0 R >> >>"
            % (6 + n),
        )
        for n in range(levels)
    ]
    last = stream(
        b"BT /F1 9 Tf (ha) Tj ET", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources " + FONT
    )
    return _one_page(
        b"/Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >>", stream(content), *forms, last
    )


def form_self() -> bytes:
    """A form that draws itself twice."""
    own = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >>"
    return _one_page(
        b"/Contents 4 0 R /Resources << /XObject << /X 5 0 R >> >>",
        stream(b"/X Do"),
        stream(b"/X Do /X Do", own),
    )


def objstm_bomb(times: int = 2_000) -> bytes:
    """A stream of 5 MB that a page uses 2,000 times."""
    return _one_page(b"/Contents [%s]" % (b"4 0 R " * times), stream(b" " * 5_000_000))


def much_text(size: int = 200_000_000) -> bytes:
    """A PDF of half a megabyte with some 200 MB of text."""
    line = b"(" + b"lorem ipsum " * 80 + b") Tj\n"
    text = b"BT /F1 1 Tf\n" + line * (size // len(line)) + b"ET"
    return _one_page(b"/Contents 4 0 R /Resources " + FONT, stream(text))


def false_count() -> bytes:
    """A PDF with one page that announces a million."""
    return document(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1000000 >>",
        _page(b""),
    )


def many_kids(count: int = 100_000) -> bytes:
    """A PDF with the same page 100,000 times."""
    return document(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b"3 0 R " * count, count),
        _page(b"/Resources " + FONT),
    )


HOSTILE: dict[str, Callable[[], bytes]] = {
    make.__name__: make for make in (form_laughs, form_self, objstm_bomb, much_text, false_count, many_kids)
}

if __name__ == "__main__":
    for name, make in HOSTILE.items():
        Path(sys.argv[1], f"{name}.pdf").write_bytes(make())
