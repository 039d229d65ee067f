"""Reads BibTeX entries with bibtexparser and decodes them, and writes entries that any BibTeX program can
read.

Imported entries are exported unchanged. Entries that readtrack writes itself are UTF-8, with LaTeX's special
characters escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from readtrack.errors import ReadtrackError
from readtrack.reading_list.catalog import Paper, Source
from readtrack.reading_list.journal import LONGEST_TAG
from readtrack.reading_list.sources import letters, parse
from readtrack.text import folded, one_line

if TYPE_CHECKING:
    from bibtexparser.model import Entry as Block

_VERBATIM = ("url", "doi", "eprint", "file", "howpublished")  # fields without LaTeX in most files
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\textbraceleft{}",
    "}": r"\textbraceright{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
}
# Characters with a LaTeX command. Imports replace each with a character that is not used otherwise.
_COMMANDS = {"braceleft": "{", "braceright": "}", "asciicircum": "^", "asciitilde": "~", "backslash": "\\"}
_SECTION = re.compile(r" \((?:section|chapter|appendix) [^()]*\)$")  # names a part of the work
_IN_JOURNAL = re.compile(r"arxiv:\s*([^\s\[\]{},;]+)", re.IGNORECASE)
_FIELD = re.compile(r"[,({]\s*([\w-]+)\s*=\s*")
_COMMAND = re.compile(rf"\\text({'|'.join(_COMMANDS)})(?:\{{\}}|(?![A-Za-z]) ?)")
_STANDS_FOR = {0xE000 + number: sign for number, sign in enumerate(_COMMANDS.values())}
# Input that LaTeX's fonts draw as one sign: dashes, quotation marks and inverted punctuation.
_LIGATURES = re.compile(
    r"(?<=-)(?=-)|(?<=')(?=')|(?<=`)(?=`)|(?<=[!?])(?=`)|(?<=,)(?=,)|(?<=<)(?=<)|(?<=>)(?=>)"
)


@dataclass(frozen=True, slots=True)
class BibEntry:
    """One entry. `fields` maps lower-case names to values without LaTeX; `raw` is the entry as in the
    file.
    """

    key: str
    kind: str
    fields: dict[str, str]
    raw: str
    line: int
    authors: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.fields.get("title", "")

    @property
    def year(self) -> int | None:
        found = re.search(
            r"(?<!\d)(1[89]|20)\d\d(?!\d)", self.fields.get("year") or self.fields.get("date", "")
        )
        return int(found[0]) if found else None

    @property
    def wording(self) -> str:
        """The text of the entry's row, such as `Title (2014)`."""
        name = self.title or self.key
        return f"{name} ({self.year})" if self.year else name

    @property
    def linked_wording(self) -> str:
        """The row's text with the first source as a link, for a row without a known paper."""
        return f"{self.wording} {self.sources[0].url}" if self.sources else self.wording

    @property
    def abstract(self) -> str:
        return self.fields.get("abstract", "")

    @property
    def pdfs(self) -> tuple[str, ...]:
        """Paths of possible PDFs, in the format of Zotero and JabRef: `Text:/a/b.pdf:application/pdf`."""
        paths: list[str] = []
        for file in re.split(r"(?<!\\);", self.fields.get("file", "")):
            parts = (part.strip() for part in (*re.split(r"(?<!\\):", file), file))
            paths += [
                re.sub(r"\\([:;\\])", r"\1", part) for part in parts if part.casefold().endswith(".pdf")
            ]
        return tuple(dict.fromkeys(paths))

    @property
    def tags(self) -> tuple[str, ...]:
        tags = map(_tag, re.split(r"[,;]", self.fields.get("keywords", "")))
        return tuple(dict.fromkeys(tag for tag in tags if tag))

    @property
    def is_read(self) -> bool:
        return self.fields.get("readstatus", "").casefold() == "read"

    @property
    def sources(self) -> tuple[Source, ...]:
        """The entry's sources: arXiv first, then the DOI, then the link."""
        fields = self.fields
        said = [fields.get("doi", ""), fields.get("url", ""), fields.get("pdf", "")]
        # Google Scholar and biblatex write `journal = {arXiv preprint arXiv:2106.09685}`.
        places = (fields.get(name, "") for name in ("journaltitle", "journal", "number", "howpublished"))
        said += [f"arxiv:{found[1]}" for one in places for found in _IN_JOURNAL.finditer(one)]
        eprint = fields.get("eprint", "")
        if eprint and fields.get("archiveprefix", fields.get("eprinttype", "arxiv")).casefold() == "arxiv":
            said.append(eprint)
        found: list[Source] = []
        for text in said:
            try:
                found.append(parse(text))
            except ReadtrackError:
                continue
        rank = {"arxiv": 0, "doi": 1, "pdf": 2, "page": 3}
        return tuple(dict.fromkeys(sorted(found, key=lambda one: rank[one.kind])))


@dataclass(frozen=True, slots=True)
class Bibliography:
    """A .bib file. `shared`: definitions that its entries need (@string, @preamble); `problems`:
    unreadable parts.
    """

    entries: list[BibEntry] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read(text: str) -> Bibliography:
    """Read all valid entries. Invalid parts become problems with their line."""
    import logging

    from bibtexparser import model
    from bibtexparser.entrypoint import parse_string

    logging.getLogger("bibtexparser").setLevel(logging.CRITICAL)  # `problems` reports the same thing
    found = Bibliography()
    library = parse_string(text)
    for block in library.blocks:
        line = (block.start_line or 0) + 1
        if isinstance(block, model.DuplicateBlockKeyBlock) and isinstance(
            block.ignore_error_block, model.Entry
        ):
            found.entries.append(_entry(block.ignore_error_block, line))
        elif isinstance(block, model.DuplicateFieldKeyBlock) and isinstance(
            block.ignore_error_block, model.Entry
        ):
            found.problems.append(f"line {line}: a field occurs twice, and the first one is used")
            found.entries.append(_entry(block.ignore_error_block, line))
        elif isinstance(block, model.Entry):
            found.entries.append(_entry(block, line))
        elif isinstance(block, model.String | model.Preamble):
            found.shared.append((block.raw or "").strip())
        elif isinstance(block, model.ParsingFailedBlock):
            found.problems.append(f"line {line}: {one_line(str(block.error))}")
    return found


def _entry(block: Block, line: int) -> BibEntry:
    fields: dict[str, str] = {}
    for one in block.fields:
        name = one.key.casefold()
        value = str(one.value)
        fields.setdefault(name, _unescaped(value) if name in _VERBATIM else decoded(value))
    people = next((str(f.value) for f in block.fields if f.key.casefold() in ("author", "editor")), "")
    authors = tuple(dict.fromkeys(filter(None, map(_name, _split(" ".join(people.split()), " and ")))))
    raw = (block.raw or "").strip()
    return BibEntry(one_line(block.key), block.entry_type.casefold(), fields, raw, line, authors)


def _unescaped(value: str) -> str:
    return one_line(re.sub(r"\\([&%$#_{}~])", r"\1", value.replace(r"\url", "")).strip("{}"))


def decoded(value: str) -> str:
    """The text that LaTeX would print: accents as letters, no braces; `value` itself if it is nested too
    deeply.
    """
    from pylatexenc.latex2text import LatexNodes2Text

    places = {name: chr(0xE000 + number) for number, name in enumerate(_COMMANDS)}
    whole = _COMMAND.sub(lambda found: places[found[1]], value)
    # A bare % would start a comment, which does not exist in BibTeX files.
    whole = re.sub(r"(?<!\\)%", r"\\%", whole)
    reader: Any = LatexNodes2Text(math_mode="verbatim", strict_latex_spaces=False)
    try:
        printed = str(reader.latex_to_text(whole))
    except RecursionError:
        return one_line(value)
    return one_line(normalize("NFC", printed).translate(_STANDS_FOR))


def _split(value: str, between: str) -> list[str]:
    """Split `value` at each `between` outside of braces."""
    pieces, start, depth = [], 0, 0
    for found in re.finditer(rf"\\.|[{{}}]|{between}", value):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0 and found[0] != "}" and not found[0].startswith("\\"):
            pieces.append(value[start : found.start()])
            start = found.end()
    return [*pieces, value[start:]]


def _tag(keyword: str) -> str:
    """The keyword as a tag. Long keywords are cut after a whole word."""
    tag = re.sub(r"[^\w.]+", "-", keyword.casefold()).strip("-.")
    if len(tag) <= LONGEST_TAG:
        return tag
    return tag[: LONGEST_TAG + 1].rpartition("-")[0].rstrip("-.") or tag[:LONGEST_TAG]


def _name(written: str) -> str:
    """`Kingma, Diederik P.` with first names first. A name completely in braces is one word."""
    parts = [decoded(part) for part in _split(written, ",")]
    if len(parts) == 1:
        return "et al." if parts[0].casefold() == "others" else parts[0]
    last, *suffix, first = parts
    return " ".join(part for part in (first, last, *suffix) if part)


# Writing


def encoded(text: str) -> str:
    """`text` for a field in braces, such that `decoded` returns `text`."""
    pieces = _LIGATURES.split(one_line(normalize("NFC", text)))
    return "{}".join("".join(_ESCAPES.get(c, c) for c in piece) for piece in pieces)


def cited_title(paper: Paper) -> str:
    """The title of the whole work, if the list's title names a part of it."""
    return _SECTION.sub("", paper.title)


def cite_key(paper: Paper) -> str:
    """A key such as `kingma2014adam`: the first author's last name, the year and the paper's id, without
    unknown parts.
    """
    words = next(iter(paper.authors), "").replace("et al.", "").split() or [""]
    name = re.sub(r"[^a-z0-9]", "", folded(words[-1]))
    id_, year = paper.id.replace("_", ""), str(paper.year or "")
    return f"{name}{year}{id_}" if name else f"{id_}{year}"


def entry(
    paper: Paper, metadata: dict[str, Any] | None = None, *, tags: Sequence[str] = (), is_read: bool = False
) -> str:
    """The paper as a BibTeX entry. `metadata` comes from arXiv."""
    said = metadata or {}
    journal, doi = (
        said.get(name) if isinstance(said.get(name), str) else "" for name in ("journal_ref", "doi")
    )
    sources = {source.kind: source.value for source in reversed(paper.own_sources)}
    arxiv = paper.arxiv_id
    fields = {
        "title": f"{{{encoded(cited_title(paper))}}}",  # double braces, so that styles keep the capitals
        "author": " and ".join(map(_author, paper.authors)),
        "year": str(paper.year or ""),
        "journal": encoded(journal or ""),
        "doi": doi or sources.get("doi", ""),
        "eprint": arxiv or "",
        "archivePrefix": "arXiv" if arxiv else "",
        "primaryClass": _category(said) if arxiv else "",
        "url": "" if doi or "doi" in sources else paper.link,
        "keywords": ", ".join(map(encoded, tags)),
        "readstatus": "read" if is_read else "",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{'article' if journal else 'misc'}{{{cite_key(paper)},", *lines, "}"])


def completed(one: BibEntry, paper: Paper) -> dict[str, str]:
    """The encoded fields that an imported entry of this paper lacks. An entry without authors also gets
    the paper's title, because its own title may be only a nickname.
    """
    sources = {source.kind: source.value for source in reversed(paper.own_sources)}
    is_stub = bool(paper.authors and not one.authors)
    renamed = is_stub and letters(cited_title(paper)) not in letters(one.title)
    year = "" if one.year or not paper.year else str(paper.year)
    known = {
        "title": f"{{{encoded(cited_title(paper))}}}" if renamed or not one.title else "",
        "author": " and ".join(map(_author, paper.authors)) if is_stub else "",
        "year": year,
    }
    if is_stub and not one.sources:
        arxiv = paper.arxiv_id or ""
        known |= {"doi": sources.get("doi", ""), "eprint": arxiv, "archivePrefix": arxiv and "arXiv"}
    return {name: value for name, value in known.items() if value}


def with_fields(raw: str, fields: Mapping[str, str]) -> str:
    """The entry's text with these fields replaced, appended, or removed ("")."""
    for name, value in fields.items():
        there = next((one for one in _written_fields(raw) if one[0] == name.casefold()), None)
        if there is not None and value:
            raw = f"{raw[: there[2]]}{{{value}}}{raw[there[3] :]}"
        elif there is not None:
            end = re.compile(r"\s*,?").match(raw, there[3])
            rest = raw[end.end() if end else there[3] :]
            raw = raw[: there[1]].rstrip() + rest
        elif value:
            body, closing = raw[:-1].rstrip(), raw[-1]
            comma = "" if body.endswith(",") else ","
            raw = f"{body}{comma}\n  {name} = {{{value}}}\n{closing}"
    return raw


def _written_fields(raw: str) -> Iterator[tuple[str, int, int, int]]:
    """Each field of an entry: its name, its start, and the start and end of its value."""
    at = 0
    while found := _FIELD.search(raw, at):
        start = at = found.end()
        depth, in_quotes = 0, raw[at : at + 1] == '"'
        at += in_quotes
        while at < len(raw) - 1 and (depth or in_quotes or raw[at] not in ",\n"):
            if raw[at] == "\\":
                at += 2
                continue
            if raw[at] == '"' and not depth and in_quotes:
                in_quotes = False
            depth += {"{": 1, "}": -1}.get(raw[at], 0)
            at += 1
        end = len(raw[:at].rstrip())
        yield found[1].casefold(), found.start(1), start, end


def _category(said: dict[str, Any]) -> str:
    first = next(iter(said.get("categories") or ()), "")
    return first if isinstance(first, str) and re.fullmatch(r"[a-z-]+(\.[A-Za-z-]+)?", first) else ""


def _author(name: str) -> str:
    if name == "et al.":
        return "others"
    whole = encoded(name)
    return f"{{{whole}}}" if "," in name or re.search(r"\band\b", name) else whole
