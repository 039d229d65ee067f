"""The schema of papers.yaml: convert a tree of YAML nodes to a `Catalog`, or report the first mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from readtrack.reading_list.catalog import Catalog, Note, Paper, Row, Section, Source, SourceKind
from readtrack.reading_list.sources import WRITTEN
from readtrack.reading_list.yaml_tree import Node, Problem, described
from readtrack.text import nearest, one_line, plain, quoted

_ID = re.compile(r"[a-z][a-z0-9_]*")
MISSING = ("title", "authors", "year")  # facts that may be missing
_PROSE = ("problem", "idea", "result")
_EARLIER_PROSE = ("summary", "claim", "figure")  # read as idea and result, for older lists


def check(path: Path, root: Node, known: Mapping[str, Paper] = MappingProxyType({})) -> Catalog:
    """Convert the tree of the file at `path` to a list. Raises Problem for the first mistake.

    known  papers that need no block in the file, and that fill in facts omitted in their blocks
    """
    fields = _mapping(root, "the list", required=("title", "checklist"), optional=("note", "papers"))
    papers = {id_: paper._replace(line=0) for id_, paper in known.items()}
    if "papers" in fields:
        node = fields["papers"]
        if not isinstance(node.value, dict):
            raise _wrong(node, "'papers'", "a mapping from ids to papers")
        own = {id_: _paper(id_, item, known.get(id_)) for id_, item in node.value.items()}
        _check_names(own, node.value)
        papers = _with_known(own, node.value, known)
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
    """A key that no row has yet. `keys` maps every key to the last number appended to it."""
    # Short enough to be part of a file name in any script.
    stem = "-".join(re.findall(r"\w+", text.casefold()))[:48].strip("-") or "row"
    key, count = stem, keys.get(stem, 1)
    while key in keys:
        count += 1
        key = f"{stem}-{count}"
    keys[stem] = count
    keys.setdefault(key, 1)
    return key


_FACTS = ("title", "authors", "year", "sources")
_PLACEHOLDER = ("unknown",)  # authors in older lists if they are listed as missing


def _paper(id_: str, node: Node, known: Paper | None) -> Paper:
    """Convert one block. `known` is the shipped paper with this id, which fills in omitted facts."""
    if not _ID.fullmatch(id_):
        raise Problem(
            node.line,
            f"{quoted(id_)} is not an id; use lower-case letters, digits and '_', starting with a letter",
        )
    optional = ("aliases", "builds_on", *_PROSE, *_EARLIER_PROSE, "missing")
    fields = _mapping(node, f"the paper {id_}", optional=(*_FACTS, *optional))
    readers: dict[str, Callable[[Node], Any]] = {
        "title": lambda item: one_line(_line(item, "'title'")),
        "authors": lambda item: tuple(_texts(item, "'authors'")),
        "year": _year,
        "sources": lambda item: tuple(_source(one) for one in _items(item, "'sources'")),
        "aliases": lambda item: tuple(_texts(item, "'aliases'")),
        "builds_on": lambda item: tuple(_texts(item, "'builds_on'")),
        **{name: _sentence(name) for name in (*_PROSE, *_EARLIER_PROSE)},
        "missing": _missing,
    }
    if known is None or _is_another(known, fields):
        _mapping(node, f"the paper {id_}", required=("title",), optional=(*_FACTS, *optional))
        known = Paper(id_, "", (), 0, (), (), (), "", "", "", 0)
    values = {name: read(fields[name]) for name, read in readers.items() if name in fields}
    for name in ("authors", "sources"):
        if name in fields and not values[name]:
            raise Problem(fields[name].line, f"{quoted(name)} is empty; give at least one")
    summary, claim, figure = (values.pop(name, "") for name in _EARLIER_PROSE)
    if summary or claim or figure:
        earlier = {"problem": "", "idea": summary, "result": f"{claim} {figure}".strip()}
        values = {**earlier, **values}
    named = values.pop("missing", ())
    if "authors" in named and values.get("authors") == _PLACEHOLDER:
        values["authors"] = ()
    if "year" in named:
        values["year"] = 0  # older lists have the year in which the paper was added
    paper = known._replace(**values, line=node.line)
    missing = tuple(
        name for name in MISSING if not getattr(paper, name) or (name == "title" and name in named)
    )
    return paper._replace(missing=missing)


def _sentence(name: str) -> Callable[[Node], str]:
    return lambda item: one_line(_text(item, quoted(name)))


def _missing(node: Node) -> tuple[str, ...]:
    names = _texts(node, "'missing'")
    for name, line in names.items():
        if name not in MISSING:
            raise Problem(line, f"{quoted(name)} cannot be missing; it must be one of {', '.join(MISSING)}")
    return tuple(names)


def _is_another(known: Paper, fields: Mapping[str, Node]) -> bool:
    """Whether a block is about a paper other than the shipped one with its id.

    That is the case if neither the title nor any source is the same.
    """
    if not {"title", "sources"} <= fields.keys():
        return False
    values = {source.value for source in known.sources}
    theirs = {_source(one).value for one in _items(fields["sources"], "'sources'")}
    return values.isdisjoint(theirs) and (
        one_line(_line(fields["title"], "'title'")).casefold() != known.title.casefold()
    )


def _with_known(
    own: dict[str, Paper], nodes: dict[str, Node], known: Mapping[str, Paper]
) -> dict[str, Paper]:
    """The list's papers, followed by the other known papers. Names in the list take precedence."""
    given = {
        *own,
        *(
            alias.casefold()
            for id_, paper in own.items()
            if "aliases" in _keys(nodes[id_])
            for alias in paper.aliases
        ),
    }

    def without_given(paper: Paper) -> Paper:
        aliases = tuple(alias for alias in paper.aliases if alias.casefold() not in given)
        return paper if aliases == paper.aliases else paper._replace(aliases=aliases)

    filled = {
        id_: paper if "aliases" in _keys(nodes[id_]) else without_given(paper) for id_, paper in own.items()
    }
    others = {id_: without_given(paper)._replace(line=0) for id_, paper in known.items() if id_ not in own}
    return {**filled, **others}


def _keys(node: Node) -> dict[str, Node]:
    assert isinstance(node.value, dict)
    return node.value


def _source(node: Node) -> Source:
    kinds = get_args(SourceKind)
    fields = _mapping(node, "a source", optional=(*kinds, "note"))
    chosen = [kind for kind in kinds if kind in fields]
    if len(chosen) != 1:
        have = f"{len(chosen)} of" if chosen else "none of"
        raise Problem(node.line, f"this source has {have} {', '.join(kinds)}; give it exactly one")
    (kind,) = chosen
    value = _line(fields[kind], quoted(kind))
    pattern, example = WRITTEN[kind]
    if not pattern.fullmatch(value):
        name = {"arxiv": "an arXiv id", "doi": "a DOI"}.get(kind, "a link")
        inside = pattern.search(value) if kind in ("arxiv", "doi") else None
        fix = f"write {inside[0]!r}" if inside else f"write one such as {example}"
        raise Problem(fields[kind].line, f"{quoted(value)} is not {name}; {fix}")
    note = fields.get("note")
    return Source(kind, value, one_line(_text(note, "'note'")) if note else "")


def _check_names(own: dict[str, Paper], nodes: dict[str, Node]) -> None:
    """Check that every alias in the list refers to a single paper."""
    taken = {id_: id_ for id_ in own}
    for paper in own.values():
        if (given := _keys(nodes[paper.id]).get("aliases")) is None:
            continue
        for alias in paper.aliases:
            owner = taken.setdefault(alias.casefold(), paper.id)
            if owner != paper.id:
                text = f"{quoted(alias)} already means {owner}; remove it from one of the two"
                raise Problem(given.line, text)


def _check_lineage(papers: dict[str, Paper], nodes: dict[str, Node]) -> None:
    """Check that every paper in `builds_on` exists, and that no paper is its own ancestor."""
    from graphlib import CycleError, TopologicalSorter

    lines = {id_: _keys(node)["builds_on"].line for id_, node in nodes.items() if "builds_on" in _keys(node)}
    for id_, line in lines.items():
        for parent in papers[id_].builds_on:
            if parent not in papers:
                hint = nearest(parent, papers, "add it to the list, or remove it here")
                raise Problem(line, f"{id_} builds on {quoted(parent)}, which is unknown; {hint}")
    try:
        TopologicalSorter({paper.id: paper.builds_on for paper in papers.values()}).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]  # graphlib lists ancestors first
        shown = " -> ".join(cycle if len(cycle) <= 8 else [*cycle[:4], "...", *cycle[-3:]])
        line = next(lines[id_] for id_ in cycle if id_ in lines)
        raise Problem(line, f"builds_on contains a cycle, {shown}; remove one of its links") from None


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
    """The texts of a list with their lines, without duplicates."""
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
    """A non-empty text on one line; inner spaces are preserved."""
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
