"""Identifiers: parses and compares arXiv ids, DOIs and links, and makes the ids of papers."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from readtrack.errors import ReadtrackError
from readtrack.reading_list.catalog import Source, SourceKind
from readtrack.text import folded, quoted

_MONTH = r"[0-9]{2}(?:0[1-9]|1[0-2])"
_ARXIV_ID = rf"(?:{_MONTH}\.[0-9]{{4,5}}|[a-z-]+(?:\.[A-Z]{{2}})?/{_MONTH}[0-9]{{3}})"
_VERSION = r"(?:v[1-9][0-9]*)?"
_DOI = r"10\.[0-9]{4,9}/\S+"
_LINK = re.compile(r"https?://[^\s/]+(/\S*)?", re.IGNORECASE)

# Patterns that the values in a reading list must match, each with an example.
WRITTEN: dict[SourceKind, tuple[re.Pattern[str], str]] = {
    "arxiv": (re.compile(_ARXIV_ID + _VERSION), '"1706.03762", "1706.03762v5" or "cs/9901001"'),
    "doi": (re.compile(_DOI), '"10.1162/neco.1997.9.8.1735"'),
    "pdf": (re.compile(_LINK.pattern), '"https://.../paper.pdf"'),
    "page": (re.compile(_LINK.pattern), '"https://..."'),
}

_ARXIV = re.compile(rf"(?:arxiv:)?({_ARXIV_ID})({_VERSION})(?:\.pdf)?", re.IGNORECASE)
_ARXIV_LINK = re.compile(r"(?:https?://)?(?:www\.|export\.)?arxiv\.org/(?:abs|pdf|html)/", re.IGNORECASE)
_DOI_LINK = re.compile(r"(?:(?:https?://)?(?:dx\.)?doi\.org/|doi:)", re.IGNORECASE)
_OF_ARXIV = re.compile(r"10\.48550/(arxiv\..+)", re.IGNORECASE)

_MARKDOWN_LINK = re.compile(r"!?\[([^\[\]]*)\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)\)")
_URL = re.compile(r"https?://[^\s<>\[\]\"']+")
_ARXIV_INSIDE = re.compile(
    r"arxiv:\s*(\S+)|(?<![\w./])([0-9]{4}\.[0-9]{4,5}(?:v[0-9]+)?)(?![\w/])", re.IGNORECASE
)
_DOI_INSIDE = re.compile(r"(?<![\w/])(10\.[0-9]{4,9}/[^\s<>\"]+)")

SMALL_WORDS = re.compile(
    r"an?|and|are|as|at|by|do|does|for|from|how|in|into|is|its?|of|on|or|our|the|to|towards|using|via|what|when"
    r"|why|with|without|you|your"
)


def parse(text: str) -> Source:
    """Parse a link, or an arXiv id or DOI, either bare or as a URL. Raises ReadtrackError."""
    text = text.strip()
    bare = _ARXIV_LINK.sub("", text)
    if found := _ARXIV.fullmatch(re.split(r"/?[?#]|/$", bare)[0] if bare != text else bare):
        return _on_arxiv(found)
    doi = _unquoted(_DOI_LINK.sub("", text)) if _DOI_LINK.match(text) else text
    if re.fullmatch(_DOI, doi):
        own = _OF_ARXIV.fullmatch(doi)
        if own and (found := _ARXIV.fullmatch(own[1].replace(".", ":", 1))):
            return _on_arxiv(found)
        return Source("doi", doi)
    if _LINK.fullmatch(text):
        return Source("pdf" if re.split(r"[?#]", text)[0].lower().endswith(".pdf") else "page", text)
    raise ReadtrackError(not_a_source(text))


def not_a_source(text: str) -> str:
    forms = "an arXiv id (1706.03762), a DOI (10.1162/neco.1997.9.8.1735) or a link (https://...)"
    return f"{quoted(text)} is not {forms}."


def _unquoted(link: str) -> str:
    from urllib.parse import unquote  # the import takes 2 ms, and most commands do not need it

    return unquote(link)


def parsed(text: str) -> Source | None:
    try:
        return parse(text)
    except ReadtrackError:
        return None


def _on_arxiv(found: re.Match[str]) -> Source:
    archive, slash, number = found[1].partition("/")
    archive, dot, subject = archive.partition(".")
    # Lists use arXiv's own spelling: cs/9901001 and math.GT/0309136.
    base = f"{archive.lower()}{dot}{subject.upper()}/{number}" if slash else found[1]
    return Source("arxiv", base + found[2].lower())


def split_version(arxiv_id: str) -> tuple[str, int | None]:
    """`1706.03762v5` -> ("1706.03762", 5); without a version ("1706.03762", None).

    An old id loses its subject class, as in arXiv's API: `math.GT/0309136` -> ("math/0309136", None).
    """
    found = re.fullmatch(r"(.+?)(?:v(\d+))?", arxiv_id)
    assert found
    return re.sub(r"\.[A-Z]{2}/", "/", found[1]), int(found[2]) if found[2] else None


def source_key(source: Source) -> str:
    """A key that is equal for all spellings of a source. Ignores the version of an arXiv id."""
    if source.kind == "arxiv":
        return f"arxiv:{split_version(source.value)[0].casefold()}"
    if source.kind == "doi":
        return f"doi:{source.value.casefold()}"
    link = re.sub(r"^https?://(www\.)?", "", source.value.casefold())
    return f"link:{link.split('#')[0].rstrip('/')}"


def sources_in(text: str) -> Iterator[Source]:
    """The arXiv ids, DOIs and links in a line of Markdown."""
    links = [link.rstrip(".,;)") if "(" not in link else link for _, link in _MARKDOWN_LINK.findall(text)]
    rest = _MARKDOWN_LINK.sub(r" \1 ", text)
    links += [
        link.rstrip(".,;:!?)") if "(" not in link else link.rstrip(".,;:!?") for link in _URL.findall(rest)
    ]
    rest = _URL.sub(" ", rest)
    ids = [(a or b).rstrip(".,;)") for a, b in _ARXIV_INSIDE.findall(rest)]
    dois = [doi.rstrip(".,;)") for doi in _DOI_INSIDE.findall(rest)]
    for one in dict.fromkeys((*links, *ids, *dois)):
        if source := parsed(one):  # else a link to a local file, or digits that resemble an id
            yield source


def links_in(text: str) -> list[str]:
    """The targets of the links in a line of Markdown, and of Obsidian's `[[file.pdf]]`."""
    return [_unquoted(link) for _, link in _MARKDOWN_LINK.findall(text)] + re.findall(
        r"\[\[([^\[\]|]+)", text
    )


def without_links(text: str) -> str:
    """A line of Markdown with links replaced by their text, and without bare addresses."""
    return _URL.sub(" ", _MARKDOWN_LINK.sub(r" \1 ", text))


def title_in(text: str) -> tuple[str, int]:
    """The title and the year (0 if none) in a line of Markdown.

    `**[QLoRA](https://...)** (2023)` gives ("QLoRA", 2023). Only a year in brackets at the end is removed
    from the title.
    """
    words = re.sub(r"(?i)\bdoi:\s*(?=10\.)", "", without_links(text))
    words = _DOI_INSIDE.sub(" ", _ARXIV_INSIDE.sub(" ", words))
    words = re.sub(r"[*`~]+|(?<!\w)_+|_+(?!\w)|<[^<>]*>|\(\s*\)|\[\s*\]", "", words)
    words = " ".join(words.split()).strip(" -–—:,;|")
    dated = re.fullmatch(r"(.+?)\s*\(((?:19|20)\d\d)\)", words)
    return (dated[1], int(dated[2])) if dated else (words, 0)


def name_key(text: str) -> str:
    """A key for ids and aliases: equal for "Flash-Attention", "flash attention", "flash_attention"."""
    return re.sub(r"[-\s]+", "_", text.strip().casefold())


def letters(text: str) -> str:
    """The key of a title: its letters and digits, in lower case and without accents."""
    return "".join(c for c in folded(text) if c.isalnum())


def make_id(title: str, taken: set[str]) -> str:
    """`FlashAttention: Fast and ...` -> flashattention. Otherwise the first words, without stop words."""
    head, colon, _ = title.partition(":")
    short = head if colon and len(head.split()) <= 3 else title
    words = re.findall(r"[a-z0-9]+", folded(short).replace("'", ""))
    stem = "_".join([word for word in words if not SMALL_WORDS.fullmatch(word)][:4] or words[:4]) or "paper"
    stem = stem if stem[0].isalpha() and not keyword.iskeyword(stem) else f"paper_{stem}"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name
