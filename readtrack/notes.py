"""Notes: the reader's own template for new notes, and quotes from the paper's PDF with page numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from readtrack.errors import NotAvailableError, ReadtrackError
from readtrack.fulltext import pdf
from readtrack.home import Home
from readtrack.library import Library, below
from readtrack.text import folded, one_line, quoted

_HIGHLIGHT = re.compile(r"^> (?P<quote>.+) \(p\. (?P<page>\d+)\)$", re.MULTILINE)
_FIELD = re.compile(r"\{(title|authors|year|id|url|abstract|date)\}")


def template(home: Home) -> Path:
    """The path of `note-template.md`, the template of new notes.

    It may contain {title}, {authors}, {year}, {id}, {url}, {abstract} and {date}.
    """
    return home.root / "note-template.md"


def beginning(library: Library, subject: str) -> str:
    """The filled-in template for this subject, or "". Raises ReadtrackError if it cannot be read."""
    path = template(library.home)
    try:
        words = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ReadtrackError(f"The template {path} cannot be read: {error}.") from error
    paper = library.catalog.papers.get(subject)
    said = (library.metadata(subject) or {}) if paper is not None else {}
    values = {
        "title": paper.title if paper is not None else library.wording(subject),
        "authors": ", ".join(paper.authors) if paper is not None else "",
        "year": str(paper.year or "") if paper is not None else "",
        "id": subject,
        "url": paper.link if paper is not None else "",
        "abstract": str(said.get("abstract") or ""),
        "date": date.today().isoformat(),
    }
    return _FIELD.sub(lambda found: values[found[1]], words)


def begin(library: Library, subject: str) -> str:
    """Start the note from the template if there is none yet, and return the text written, for `settle`."""
    if library.note(subject).strip():
        return ""
    begun = beginning(library, subject)
    if begun:
        library.change_note(subject, lambda note: note if note.strip() else begun)
    return begun


def settle(library: Library, subject: str, begun: str) -> None:
    """Delete a note that still contains only the template."""
    if begun and library.note(subject) == begun:
        library.change_note(subject, lambda note: "" if note == begun else note)


# Highlights


@dataclass(frozen=True, slots=True)
class Highlight:
    page: int
    quote: str


def highlights(note: str) -> list[Highlight]:
    """The quotes in a note, in its order."""
    return [Highlight(int(found["page"]), found["quote"]) for found in _HIGHLIGHT.finditer(note)]


def highlight(
    library: Library, paper: str, quote: str, *, page: int | None = None, comment: str = ""
) -> Highlight | None:
    """Add a quote to the paper's note, worded as in its PDF, with the page; None if it is there already.

    Raises NotAvailableError without a PDF (unless `page` is given), ReadtrackError if the PDF cannot be read,
    does not contain the quote, or has it on several pages.
    """
    found = _found(library, paper, one_line(quote), page)
    words = f"> {found.quote} (p. {found.page})\n\n{comment.strip()}"
    kept = True

    def add(note: str) -> str:
        nonlocal kept
        kept = found not in highlights(note)
        return below(note, words) if kept else note

    library.change_note(paper, add)
    return found if kept else None


def united(before: str, edited: str, now: str) -> str:
    """Merge the edit of the note from `before` to `edited` with `now`, the file as another program changed
    it. No text is lost.
    """
    if now == before or not now.strip():
        return edited
    if now.startswith(before.rstrip()):  # text was appended since
        return below(edited, now.removeprefix(before.rstrip()))
    return below(edited, f"(Changed by another program at the same time:)\n\n{now}")


def _found(library: Library, paper: str, quote: str, page: int | None) -> Highlight:
    if not quote:
        raise ReadtrackError("the quote is empty.")
    path = library.pdf(paper)
    if path is None:
        if page is None:
            can_sync = library.catalog.papers[paper].pdf_sources
            get = f"`readtrack sync {paper}`" if can_sync else f"`readtrack attach {paper} FILE`"
            raise NotAvailableError(f"the PDF of {paper} is not here. Run {get}, or give --page.")
        return Highlight(page, quote)
    found = [
        Highlight(number, words)
        for number, text in pdf.pages(library.home, path)
        if page in (None, number) and (words := _words(text, quote))
    ]
    if not found:
        where = f"page {page} of the PDF" if page else "the PDF"
        raise ReadtrackError(f"{where} does not contain {quoted(quote)}. Copy a line or two from the PDF.")
    if len(found) > 1:
        shown = ", ".join(str(one.page) for one in found[:8])
        raise ReadtrackError(f"the quote is on pages {shown}. Choose one with --page.")
    return found[0]


def _words(text: str, quote: str) -> str:
    """The quote as printed on the page, matched without regard to case, accents, spaces and hyphens."""
    letters, places = [], []
    for place, character in enumerate(text):
        for letter in folded(character):
            if letter.isalnum():
                letters.append(letter)
                places.append(place)
    wanted = "".join(c for c in folded(quote) if c.isalnum())
    at = "".join(letters).find(wanted) if wanted else -1
    return text[places[at] : places[at + len(wanted) - 1] + 1] if at >= 0 else ""
