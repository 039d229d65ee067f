"""The form of papers.yaml: a tree of YAML nodes becomes a `Catalog`, or the first mistake in it is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from readtrack.reading_list.catalog import Catalog, Note, Paper, Row, Section, Source, SourceKind
from readtrack.reading_list.yaml_tree import Node, Problem, described
from readtrack.text import nearest, one_line, plain, quoted

_ID = re.compile(r"[a-z][a-z0-9_]*")
_ARXIV = re.compile(
    r"(?:[0-9]{2}(?:0[1-9]|1[0-2])\.[0-9]{4,5}|[a-z-]+(?:\.[A-Z]{2})?/[0-9]{2}(?:0[1-9]|1[0-2])[0-9]{3})(?:v[1-9][0-9]*)?"
)
_DOI = re.compile(r"10\.[0-9]{4,9}/\S+")
_LINK = re.compile(r"https?://[^\s/]+(/\S*)?")
_PROSE = ("problem", "idea", "result")
_EARLIER_PROSE = ("summary", "claim", "figure")  # read as idea and result: older lists have these


def check(path: Path, root: Node) -> Catalog:
    """The tree of the file at `path` as a list. Raises Problem for the first thing that is wrong."""
    fields = _mapping(root, "the list", required=("title", "checklist"), optional=("note", "papers"))
    papers: dict[str, Paper] = {}
    if "papers" in fields:
        node = fields["papers"]
        if not isinstance(node.value, dict):
            raise _wrong(node, "'papers'", "a mapping from ids to papers")
        papers = {id_: _paper(id_, item) for id_, item in node.value.items()}
        _check_names(papers, node.value)
        _check_lineage(papers, node.value)
    keys: dict[str, int] = {}
    return Catalog(
        path,
        _line(fields["title"], "'title'"),
        _prose(fields.get("note")),
        tuple(_section(item, papers, keys) for item in _items(fields["checklist"], "'checklist'")),
        papers,
    )


def _section(node: Node, papers: dict[str, Paper], keys: dict[str, int]) -> Section:
    fields = _mapping(node, "a section", required=("section",), optional=("note", "rows"))
    rows = _rows(fields.get("rows"), papers, keys)
    return Section(_line(fields["section"], "'section'"), _prose(fields.get("note")), rows)


def _rows(node: Node | None, papers: dict[str, Paper], keys: dict[str, int]) -> tuple[Row | Note, ...]:
    return tuple(_row(item, papers, keys) for item in _items(node, "'rows'"))


def _row(node: Node, papers: dict[str, Paper], keys: dict[str, int]) -> Row | Note:
    if isinstance(node.value, dict) and "note" in node.value and "text" not in node.value:
        return Note(_prose(_mapping(node, "a note", required=("note",))["note"]))
    fields = _mapping(node, "a row", required=("text",), optional=("done", "papers", "rows"))
    text = _line(fields["text"], "'text'")
    named = _texts(fields.get("papers"), "'papers'")
    for id_, line in named.items():
        if id_ not in papers:
            raise Problem(
                line, f"there is no paper {quoted(id_)}; {nearest(id_, papers, 'add it to papers')}"
            )
    key = _unused_key(text, keys)
    return Row(
        text, _tick(fields.get("done")), tuple(named), _rows(fields.get("rows"), papers, keys), key, node.line
    )


def _unused_key(text: str, keys: dict[str, int]) -> str:
    """A key that no row has yet. `keys` has every key, with the last number that was put behind it."""
    # Short enough to be part of a file's name, whatever the script.
    stem = "-".join(re.findall(r"\w+", text.casefold()))[:48].strip("-") or "row"
    key, count = stem, keys.get(stem, 1)
    while key in keys:
        count += 1
        key = f"{stem}-{count}"
    keys[stem] = count
    keys.setdefault(key, 1)
    return key


def _paper(id_: str, node: Node) -> Paper:
    if not _ID.fullmatch(id_):
        raise Problem(
            node.line, f"{quoted(id_)} is not an id; use small letters, digits and '_', a letter first"
        )
    fields = _mapping(
        node,
        f"the paper {id_}",
        required=("title", "authors", "year", "sources"),
        optional=("aliases", "builds_on", *_PROSE, *_EARLIER_PROSE),
    )
    sources = tuple(_source(item) for item in _items(fields["sources"], "'sources'"))
    authors = tuple(_texts(fields["authors"], "'authors'"))
    for name, found in (("authors", authors), ("sources", sources)):
        if not found:
            raise Problem(fields[name].line, f"{quoted(name)} is empty; give at least one")
    prose = {
        name: one_line(_text(fields[name], quoted(name))) if name in fields else ""
        for name in (*_PROSE, *_EARLIER_PROSE)
    }
    return Paper(
        id=id_,
        title=one_line(_line(fields["title"], "'title'")),
        authors=authors,
        year=_year(fields["year"]),
        sources=sources,
        aliases=tuple(_texts(fields.get("aliases"), "'aliases'")),
        builds_on=tuple(_texts(fields.get("builds_on"), "'builds_on'")),
        problem=prose["problem"],
        idea=prose["idea"] or prose["summary"],
        result=prose["result"] or f"{prose['claim']} {prose['figure']}".strip(),
        line=node.line,
    )


def _source(node: Node) -> Source:
    kinds = get_args(SourceKind)
    fields = _mapping(node, "a source", optional=(*kinds, "note"))
    chosen = [kind for kind in kinds if kind in fields]
    if len(chosen) != 1:
        have = f"{len(chosen)} of" if chosen else "none of"
        raise Problem(node.line, f"this source has {have} {', '.join(kinds)}; give it exactly one")
    (kind,) = chosen
    value = _line(fields[kind], quoted(kind))
    pattern, example = {
        "arxiv": (_ARXIV, '"1706.03762", "1706.03762v5" or "cs/9901001"'),
        "doi": (_DOI, '"10.1162/neco.1997.9.8.1735"'),
        "pdf": (_LINK, '"https://.../paper.pdf"'),
        "page": (_LINK, '"https://..."'),
    }[kind]
    if not pattern.fullmatch(value):
        name = {"arxiv": "an arXiv id", "doi": "a DOI"}.get(kind, "a link")
        inside = pattern.search(value) if kind in ("arxiv", "doi") else None
        fix = f"write {inside[0]!r}" if inside else f"write one such as {example}"
        raise Problem(fields[kind].line, f"{quoted(value)} is not {name}; {fix}")
    note = fields.get("note")
    return Source(kind, value, one_line(_text(note, "'note'")) if note else "")


def _check_names(papers: dict[str, Paper], nodes: dict[str, Node]) -> None:
    """Every alias means one paper."""
    taken = {id_: id_ for id_ in papers}
    for paper in papers.values():
        for alias in paper.aliases:
            owner = taken.setdefault(alias.casefold(), paper.id)
            if owner != paper.id:
                fields = nodes[paper.id].value
                assert isinstance(fields, dict)
                text = f"{quoted(alias)} already means {owner}; take it out of one of the two"
                raise Problem(fields["aliases"].line, text)


def _check_lineage(papers: dict[str, Paper], nodes: dict[str, Node]) -> None:
    """Every paper that is built on exists, and no paper is its own ancestor."""
    from graphlib import CycleError, TopologicalSorter

    def line(id_: str) -> int:
        fields = nodes[id_].value
        assert isinstance(fields, dict)
        return fields["builds_on"].line

    for paper in papers.values():
        for parent in paper.builds_on:
            if parent not in papers:
                hint = nearest(parent, papers, "add it, or take it out")
                raise Problem(
                    line(paper.id), f"{paper.id} builds on {quoted(parent)}, which is not there; {hint}"
                )
    try:
        TopologicalSorter({paper.id: paper.builds_on for paper in papers.values()}).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]  # it lists ancestors first
        shown = " -> ".join(cycle if len(cycle) <= 8 else [*cycle[:4], "...", *cycle[-3:]])
        raise Problem(line(cycle[0]), f"builds_on goes in a circle, {shown}; take one of them out") from None


def _mapping(
    node: Node, what: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> dict[str, Node]:
    known = (*required, *optional)
    if not isinstance(node.value, dict):
        raise _wrong(node, what, f"keys such as '{known[0]}:'")
    for key, item in node.value.items():
        if key not in known:
            hint = nearest(key, known, f"{what} may have {', '.join(known)}")
            raise Problem(item.line, f"unknown key {quoted(key)}; {hint}")
    for key in required:
        if key not in node.value:
            raise Problem(node.line, f"{what} has no {quoted(key)}; add '{key}: ...'")
    return node.value


def _items(node: Node | None, what: str) -> list[Node]:
    if node is None or node.value is None:
        return []
    if not isinstance(node.value, list):
        raise _wrong(node, what, "a list, each item on a line that starts with '- '")
    return node.value


def _texts(node: Node | None, what: str) -> dict[str, int]:
    """The texts of a list, each with its line; none twice."""
    found: dict[str, int] = {}
    for item in _items(node, what):
        text = one_line(_line(item, f"an item of {what}"))
        if text in found:
            raise Problem(item.line, f"{quoted(text)} is listed twice in {what}; keep one of the two")
        found[text] = item.line
    return found


def _text(node: Node, what: str) -> str:
    if node.value is None:
        return ""
    if not isinstance(node.value, str):
        raise _wrong(node, what, "a text; put it in double quotes if it has ': ' or '#' in it")
    return plain(node.value)


def _line(node: Node, what: str) -> str:
    """A text that may not be empty, on one line; spaces within stay as the reader wrote them."""
    text = " ".join(part.strip() for part in _text(node, what).expandtabs(1).splitlines()).strip()
    if not text:
        raise Problem(node.line, f"{what} is empty; write a text after it")
    return text


def _prose(node: Node | None) -> str:
    return _text(node, "'note'").strip() if node else ""


def _tick(node: Node | None) -> bool:
    if node is None or node.value in ("false", "False"):
        return False
    if node.value in ("true", "True"):
        return True
    raise _wrong(node, "'done'", "true or false")


def _year(node: Node) -> int:
    if isinstance(node.value, str) and re.fullmatch(r"(1[89]|20)\d\d", node.value, re.ASCII):
        return int(node.value)
    raise _wrong(node, "'year'", "four digits, such as 2017")


def _wrong(node: Node, what: str, wanted: str) -> Problem:
    return Problem(node.line, f"{what} is {described(node)}; it must be {wanted}")
